// Command vmctl runs virtual machines on two hosts and resumes them on the
// other when one dies.
package main

func main() {}
