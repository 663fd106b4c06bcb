package packages

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// manual is vmctl(8): a hand-written beginning and end, and between them what
// the program itself says about each of its commands.
func manual(ctx context.Context, program, root string, date time.Time) ([]byte, error) {
	var page bytes.Buffer
	fmt.Fprintf(&page, ".TH VMCTL 8 %s vmctl \"System administration\"\n", date.Format(time.DateOnly))
	files := filepath.Join(root, "packaging", "package", "files")
	head, err := os.ReadFile(filepath.Join(files, "vmctl.8.head"))
	if err != nil {
		return nil, fmt.Errorf("write the manual page: %w", err)
	}
	page.Write(head)
	page.WriteString(".SH COMMANDS\n")
	if err := describeCommands(ctx, &page, program, nil); err != nil {
		return nil, fmt.Errorf("write the manual page: %w", err)
	}
	tail, err := os.ReadFile(filepath.Join(files, "vmctl.8.tail"))
	if err != nil {
		return nil, fmt.Errorf("write the manual page: %w", err)
	}
	page.Write(tail)
	return page.Bytes(), nil
}

// commandDepth bounds the walk, should a program offer commands without end.
const commandDepth = 4

func describeCommands(ctx context.Context, page *bytes.Buffer, program string, words []string) error {
	listed, err := output(ctx, "", program, append(words, "--generate-bash-completion")...)
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(listed) {
		if name == "help" || name == "h" || len(words) == commandDepth {
			continue
		}
		command := append(words[:len(words):len(words)], name)
		help, err := output(ctx, "", program, append(command, "--help")...)
		if err != nil {
			return err
		}
		fmt.Fprintf(page, ".SS \"vmctl %s\"\n%s", strings.Join(command, " "), helpText(help))
		if err := describeCommands(ctx, page, program, command); err != nil {
			return err
		}
	}
	return nil
}

// helpText is a command's --help in the manual's language: its NAME's words as
// text, the rest as it is.
func helpText(help string) string {
	var text strings.Builder
	name, rest, _ := strings.Cut(strings.TrimPrefix(help, "NAME:\n"), "\n")
	if _, usage, ok := strings.Cut(name, " - "); ok {
		text.WriteString(escape(usage) + "\n")
	}
	text.WriteString(".PP\n.nf\n")
	for line := range strings.Lines(strings.Trim(rest, "\n") + "\n") {
		text.WriteString(escape(strings.TrimRight(line, " \n")) + "\n")
	}
	text.WriteString(".fi\n")
	return text.String()
}

var roff = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "'", `\(aq`)

func escape(line string) string {
	line = roff.Replace(line)
	if strings.HasPrefix(line, ".") {
		return `\&` + line
	}
	return line
}
