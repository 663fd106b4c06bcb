// Command failover measures how long a guest is silent after its host lost
// power: ours, and pacemaker's with VirtualDomain, in turns on one machine. It
// writes bench/failover.md from the samples in bench/failover.jsonl. It is
// `make bench-failover`.
package main
