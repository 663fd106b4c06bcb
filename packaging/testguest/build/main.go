package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"vmctl/packaging/testguest"
)

func main() {
	cache := flag.String("cache", ".cache/guest", "directory to keep the guest in")
	flag.Parse()
	image, err := testguest.Build(context.Background(), *cache)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("test guest:", image.Kernel, image.Initrd, image.DiskBase)
}
