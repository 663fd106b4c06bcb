//go:build !race

package replicator

const underRace = false
