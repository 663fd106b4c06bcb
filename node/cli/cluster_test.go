package cli

import (
	"strings"
	"testing"
	"text/tabwriter"

	"vmctl/node/api"
)

// TestClusterTableTellsTheThirdVote: one that is no witness is not taken for none.
func TestClusterTableTellsTheThirdVote(t *testing.T) {
	for _, test := range []struct {
		cluster api.Cluster
		say     string
	}{
		{api.Cluster{Mode: "none"}, "no witness: a dead peer is reported"},
		{api.Cluster{Mode: "bias", Bias: "a"}, "bias: only a takes guests over by itself"},
		{api.Cluster{Mode: "fence", FenceDelaySeconds: 5}, "fence: a silent node is switched off before its guests are taken over (head start 5 s)"},
		{api.Cluster{Mode: "witness", Witness: &api.Witness{Name: "w", Addr: "10.0.0.3:7441"}}, "10.0.0.3:7441"},
		{api.Cluster{Mode: "witness"}, "witness: it is not known here yet"},
	} {
		var text strings.Builder
		w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
		clusterTable(w, test.cluster)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if got := text.String(); !strings.Contains(got, test.say) || test.cluster.Mode != "none" && strings.Contains(got, "no witness") {
			t.Errorf("%+v:\n%s", test.cluster, got)
		}
	}
}
