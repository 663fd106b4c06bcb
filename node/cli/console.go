package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// escape ends a console: Ctrl-].
const escape = 0x1d

func vmConsoleCommand() *cli.Command {
	return &cli.Command{
		Name: "console", Usage: "join the guest's serial line; Ctrl-] leaves it", ArgsUsage: "NAME",
		Description: "One at a time may have it. Without a terminal, standard input is sent to the guest and\n" +
			"the console stays open when it ends. Everything the guest wrote is in `vmctl vm logs` too.",
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			line, err := client(c).Console(c.Context, args[0])
			if err != nil {
				return err
			}
			defer line.Close()
			if file, ok := c.App.Reader.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
				fmt.Fprintf(c.App.ErrWriter, "console of %s, leave with Ctrl-]\r\n", args[0])
				state, err := term.MakeRaw(int(file.Fd()))
				if err == nil {
					defer term.Restore(int(file.Fd()), state)
				}
			}
			defer context.AfterFunc(c.Context, func() { line.Close() })()
			err = join(c.App.Reader, c.App.Writer, line)
			if c.Context.Err() != nil {
				return c.Context.Err()
			}
			return err
		},
	}
}

// join copies both ways until the guest's end closes or the user types the
// escape. The end of a standard input that is a file or a pipe leaves the
// console open: the answer is still to come.
func join(in io.Reader, out io.Writer, line io.ReadWriteCloser) error {
	left := make(chan struct{})
	go func() { // ends with the process: a read of a terminal cannot be called off
		buffer := make([]byte, 4096)
		for {
			n, err := in.Read(buffer)
			if i := bytes.IndexByte(buffer[:n], escape); i >= 0 {
				_, _ = line.Write(buffer[:i])
				close(left)
				line.Close()
				return
			}
			if _, werr := line.Write(buffer[:n]); werr != nil || err != nil {
				return
			}
		}
	}()
	_, err := io.Copy(out, line)
	select {
	case <-left:
		return nil
	default:
		return err
	}
}
