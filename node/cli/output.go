package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
)

func client(c *cli.Context) *api.Client { return api.NewClient(c.String("socket")) }

func asJSON(c *cli.Context) bool { return c.String("output") == "json" }

// show prints value as JSON, or by the function that writes it for people.
func show(c *cli.Context, value any, people func(*tabwriter.Writer)) error {
	if asJSON(c) {
		encoder := json.NewEncoder(c.App.Writer)
		encoder.SetIndent("", "  ")
		return encoder.Encode(value)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 4, 2, ' ', 0)
	people(w)
	return w.Flush()
}

// warn prints what the agent has to say about what it did, beside the answer.
func warn(c *cli.Context, v api.VM) {
	for _, text := range v.Warnings {
		fmt.Fprintf(c.App.ErrWriter, "vmctl: warning: %s\n", text)
	}
}

// count is a number of things in words, such as "1 guest" and "2 guests".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// heard says when a voter was.
func heard(seconds *float64) string {
	if seconds == nil {
		return "never heard"
	}
	return "heard " + ago(seconds)
}

func ago(seconds *float64) string {
	if seconds == nil {
		return "never"
	}
	return since(*seconds) + " ago"
}

func since(seconds float64) string {
	if seconds < 10 {
		return fmt.Sprintf("%.1f s", seconds)
	}
	return (time.Duration(seconds) * time.Second).String()
}

func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, suffix := float64(n), ""
	for _, suffix = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value /= unit; value < unit {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", value, suffix)
}

func yesNo(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// resyncText is how far a resync is, and how long it will take.
func resyncText(r *api.Replica) string {
	if r.State != "resync" {
		return ""
	}
	text := fmt.Sprintf(" %.0f %%", 100*r.Progress)
	if r.RemainingSeconds > 0 {
		text += fmt.Sprintf(", %s left", since(r.RemainingSeconds))
	}
	return text
}

// protectionText says in a few words how well a guest is covered now.
func protectionText(v api.VM) string {
	if v.Protection.Level == "none" {
		return "none"
	}
	words := []string{v.Protection.Level}
	if v.Replica != nil {
		words = append(words, v.Replica.State+resyncText(v.Replica))
	}
	if v.Covered() == "restart" && v.Protection.Level == "resume" {
		words = append(words, "only as restart")
	}
	if v.RPOSeconds != nil {
		words = append(words, fmt.Sprintf("RPO %s", since(*v.RPOSeconds)))
	}
	return strings.Join(words, ", ")
}
