// Command takeover measures how long a guest takes from the end of its lease to
// its first sign of life on the other host: in a QEMU that waited there, and in
// one that is started for it, in turns. It writes bench/takeover.md from the
// samples in bench/takeover.jsonl. It is `make bench-takeover`.
package main
