// Command build makes the test guest. It is `make guest`.
package main
