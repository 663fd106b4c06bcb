// Command demo shows on one machine what vmctl is for: a guest whose host loses
// power goes on on the other host. It is `make demo`.
package main
