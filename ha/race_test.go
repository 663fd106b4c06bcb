//go:build race

package ha_test

const underRace = true
