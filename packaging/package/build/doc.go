// Command build makes the packages and prints where they are:
//
//	go run ./packaging/package/build -version 1.2.3 -out dist
package main
