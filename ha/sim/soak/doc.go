// Command soak plays many fault schedules over the production cores, block by
// block over all processors, and prints what they went through. It can be
// interrupted: what is done is in the state file, and -resume goes on there.
//
//	go run ./ha/sim/soak -count 1000000 -state .cache/soak.json -resume
//
// Only resume with the same sources: sums over different ones prove nothing.
package main
