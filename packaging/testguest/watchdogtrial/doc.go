// Command watchdogtrial is what a test guest does in the trial of the watchdog: the
// product's guard and keeper, on a real kernel with a real device. It says on its
// console what it sees, step by step, and ends by having the guest reset.
package main
