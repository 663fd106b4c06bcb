package vm

import "testing"

func TestParseGrowth(t *testing.T) {
	for _, test := range []struct {
		text string
		now  Size
		want Size // 0: refused
	}{
		{"2G", GiB, 2 * GiB},
		{"+1G", GiB, 2 * GiB},
		{" +512 ", MiB, MiB + 512},
		{"1G", 2 * GiB, GiB}, // whoever asks says that it only grows
		{"+0", GiB, GiB},
		{"-1G", GiB, 0},
		{"+-1G", GiB, 0},
		{"++1G", GiB, 0},
		{"", GiB, 0},
		{"+", GiB, 0},
		{"1GB", GiB, 0},
		{"100", GiB, 0},
		{"+1", GiB, 0},
		{"2P", GiB, 0},
		{"+8000P", PiB, 0},
	} {
		growth, err := ParseGrowth(test.text)
		var got int64
		if err == nil {
			got, err = growth.Of(int64(test.now))
		}
		if (err == nil) != (test.want != 0) || err == nil && Size(got) != test.want {
			t.Errorf("%q of %v: %v, %v", test.text, test.now, Size(got), err)
		}
	}
}

func TestResizedLeavesTheSpecAlone(t *testing.T) {
	was := Spec{Disks: []Disk{{Name: "a", Size: MiB}, {Name: "b", Path: "/x"}}}
	now := was.Resized(0, int64(GiB)).Resized(1, int64(GiB))
	if was.Disks[0].Size != MiB || now.Disks[0].Size != GiB || now.Disks[1].Size != 0 {
		t.Errorf("%+v became %+v", was.Disks, now.Disks)
	}
}
