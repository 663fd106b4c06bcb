// Command vmctl runs virtual machines on two hosts and resumes them on the
// other when one dies.
package main

import (
	"os"

	"vmctl/node/cli"
)

func main() {
	os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
