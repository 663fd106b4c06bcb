// Command checkpoints measures what checkpoints cost a guest: how long it stands
// still and how many bytes travel, beside QEMU's savevm; what finding written
// pages takes by comparing and by soft-dirty bits; how fast memory is copied in
// the pause; and whether eight guests on one pair keep their intervals. It
// writes bench/checkpoints.md. It is `make bench-checkpoints`.
package main
