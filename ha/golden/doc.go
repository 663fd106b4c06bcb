// Package golden compares what a test produced with a file that people have
// read and kept. It is for tests only, of any room: it knows nothing of what it
// compares. A package that uses it has the test flag -update, which writes its
// files anew; what differs afterwards is for git and a reader to judge.
package golden
