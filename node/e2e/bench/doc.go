// Command bench measures what the product costs and how fast it is, on this
// machine, and writes tables with the command that made them to bench/. It is
// `make bench`.
package main
