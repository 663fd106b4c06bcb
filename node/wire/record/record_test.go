package record

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// echo is a server that says back what it hears, until the other end closes.
func echo(t *testing.T) (addr string, ended chan error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}, ClientAuth: tls.RequestClientCert}
	ended = make(chan error, 1)
	go func() {
		raw, err := listener.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer raw.Close()
		conn, state, err := Server(t.Context(), raw, config)
		if err == nil && !state.HandshakeComplete {
			err = errors.New("the handshake is not complete")
		}
		if err == nil {
			_, err = io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
		}
		ended <- err
	}()
	return listener.Addr().String(), ended
}

func TestSpeaksTLSWithGo(t *testing.T) {
	addr, ended := echo(t)
	own := certificate(t)
	client, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{own}})
	if err != nil {
		t.Fatal(err)
	}
	sizes := []int{1, 2, 100, MaxPlain - 1, MaxPlain, MaxPlain + 1, 100_000}
	for _, size := range sizes {
		sent, got := bytes.Repeat([]byte{0, byte(size)}, size)[:size], make([]byte, size)
		if _, err := client.Write(sent); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(sent, got) {
			t.Fatalf("%d bytes came back otherwise: %v", size, err)
		}
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the farewell was not understood: %v", err)
	}
}

// Each suite of TLS 1.3, with an implementation that is not Go's. Go's own
// client chooses one by itself.
func TestSpeaksTLSWithOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatalf("`make deps` installs openssl: %v", err)
	}
	for _, suite := range []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"} {
		addr, ended := echo(t)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, openssl, "s_client", "-connect", addr, "-tls1_3", "-ciphersuites", suite, "-brief", "-ign_eof", "-nocommands")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var about strings.Builder
		cmd.Stderr = &about
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sent := "a vote of " + suite + "\n"
		if _, err := io.WriteString(in, sent); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(out, got); err != nil || string(got) != sent {
			t.Errorf("%s: %q came back, %v", suite, got, err)
		}
		cancel()
		_ = cmd.Wait()
		if !strings.Contains(about.String(), suite) {
			t.Errorf("%s was not used: %s", suite, about.String())
		}
		<-ended
	}
}

// The keys of RFC 8448, section 3, "derive read traffic keys for application data".
func TestKeysOfTheRFC(t *testing.T) {
	secret, err := hex.DecodeString("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := newKeys(tls.TLS_AES_128_GCM_SHA256, secret)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(keys.key[:16]); got != "9f02283b6c9c07efc26bb9f2ac92e356" {
		t.Errorf("the key is %s", got)
	}
	if got := hex.EncodeToString(keys.iv[:]); got != "cf782b88dd83549aadf1e984" {
		t.Errorf("the iv is %s", got)
	}
	if _, err := newKeys(tls.TLS_RSA_WITH_AES_128_CBC_SHA, secret); err == nil {
		t.Error("a suite of TLS 1.2 has keys")
	}
}

func TestRecordsCountOnceAndInOrder(t *testing.T) {
	out, err := newKeys(tls.TLS_AES_128_GCM_SHA256, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	start := out
	seal := func(text string) []byte {
		record, err := out.Seal(nil, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return record
	}
	first, second := seal("first"), seal("second")
	changed := bytes.Clone(first)
	changed[len(changed)-1] ^= 1
	relabelled := bytes.Clone(first)
	relabelled[1] = 4
	for name, records := range map[string][][]byte{
		"in order": {first, second}, "replayed": {first, first}, "reordered": {second}, "changed": {changed},
		"another header": {relabelled}, "cut short": {first[:len(first)-1]}, "a header alone": {first[:HeaderSize]},
	} {
		in, bad := start, error(nil)
		for _, r := range records {
			if _, err := in.Open(bytes.Clone(r)); err != nil {
				bad = err
			}
		}
		if ok := name == "in order"; ok != (bad == nil) || (!ok && !errors.Is(bad, ErrRecord)) {
			t.Errorf("%s: %v", name, bad)
		}
	}
}

func TestOtherRecordsEndTheConnection(t *testing.T) {
	keys, err := newKeys(tls.TLS_CHACHA20_POLY1305_SHA256, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := keys.cipher()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		plain []byte
		want  error
	}{
		"a farewell":       {[]byte{1, 0, typeAlert}, ErrClosed},
		"a key update":     {[]byte{24, 0, 0, 1, 0, 22}, ErrRecord},
		"padding alone":    {[]byte{0, 0, 0}, ErrRecord},
		"nothing":          {nil, ErrRecord},
		"too much":         {append(make([]byte, MaxPlain+1), typeData), ErrRecord},
		"too much padding": {append([]byte{7, typeData}, make([]byte, MaxPlain)...), ErrRecord},
		"padded data":      {[]byte{7, typeData, 0, 0}, nil},
		"padded in full":   {append([]byte{7, typeData}, make([]byte, MaxPlain-1)...), nil},
		"no data, a type":  {[]byte{typeData}, nil},
	} {
		in := keys
		head := []byte{typeData, 3, 3, byte((len(test.plain) + 16) >> 8), byte(len(test.plain) + 16)}
		record := append(head, aead.Seal(nil, keys.iv[:], test.plain, head)...)
		if _, err := in.Open(record); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeysAreSpentInTime(t *testing.T) {
	keys, err := newKeys(tls.TLS_AES_128_GCM_SHA256, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	keys.number = maxRecords - 1
	last, other := keys, keys
	record, err := last.Seal(nil, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := last.Seal(nil, []byte("x")); !errors.Is(err, ErrSpent) {
		t.Errorf("one more was sealed: %v", err)
	}
	if _, err := other.Open(record); err != nil {
		t.Error(err)
	}
	if _, err := other.Open(record); !errors.Is(err, ErrSpent) {
		t.Errorf("one more was opened: %v", err)
	}
}

// pipe is a connection with keys, and the other end's.
func pipe(t *testing.T) (*Conn, net.Conn, Keys) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	keys, err := newKeys(tls.TLS_AES_128_GCM_SHA256, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	return &Conn{Conn: near, in: keys, out: keys}, far, keys
}

func TestReleasedConnectionHasNoKeys(t *testing.T) {
	conn, far, _ := pipe(t)
	go func() { _, _ = io.Copy(io.Discard, far) }()
	raw, _, out, err := conn.Release()
	if err != nil || raw == nil {
		t.Fatal(err)
	}
	if _, err := out.Seal(nil, []byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := conn.Write([]byte("x")); err == nil {
		t.Error("a number was used twice")
	}
}

func TestEmptyRecordEndsTheConnection(t *testing.T) {
	conn, far, keys := pipe(t)
	go func() {
		record, err := keys.Seal(nil, nil)
		if err == nil {
			_, err = far.Write(record)
		}
		if err != nil {
			t.Error(err)
		}
		far.Close()
	}()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, ErrRecord) {
		t.Errorf("it gave %v", err)
	}
}

// What follows the handshake in the same packet must not be lost to crypto/tls.
func TestDataRightBehindTheHandshake(t *testing.T) {
	for range 20 {
		addr, ended := echo(t)
		raw, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		gathered := &gather{Conn: raw}
		client := tls.Client(gathered, &tls.Config{InsecureSkipVerify: true})
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		gathered.hold = false
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(client, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		client.Close()
		<-ended
	}
}

// gather holds back everything written after the first flight, until hold ends.
type gather struct {
	net.Conn
	writes int
	hold   bool
	data   []byte
}

func (g *gather) Write(p []byte) (int, error) {
	if g.writes++; g.writes == 1 {
		g.hold = true
		return g.Conn.Write(p)
	}
	g.data = append(g.data, p...)
	if g.hold {
		return len(p), nil
	}
	_, err := g.Conn.Write(g.data)
	g.data = nil
	return len(p), err
}

func FuzzOpen(f *testing.F) {
	keys, err := newKeys(tls.TLS_AES_128_GCM_SHA256, make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	sealer := keys
	record, err := sealer.Seal(nil, []byte("a heartbeat"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record)
	f.Add([]byte{typeData, 3, 3, 0, 0})
	f.Add([]byte{typeData, 3, 3, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := Length(data)
		if err != nil || n == 0 || n > len(data) {
			return
		}
		in := keys
		if plain, err := in.Open(bytes.Clone(data[:n])); err == nil && !bytes.Equal(data[:n], record) {
			t.Errorf("a forgery opens: %q", plain)
		}
	})
}

// Packed keys go on in another process where they were; the first one has none.
func TestPackedKeysGoOn(t *testing.T) {
	for _, suite := range []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256} {
		secret := bytes.Repeat([]byte{7}, 48)
		out, err := newKeys(suite, secret)
		if err != nil {
			t.Fatal(err)
		}
		in := out
		var sealed []byte
		for i := range 3 {
			if sealed, err = out.Seal(nil, []byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
			packedIn, packedOut := in.Pack(), out.Pack()
			if in != (Keys{}) || out != (Keys{}) {
				t.Error("packed keys stay")
			}
			if _, err := out.Seal(nil, []byte{0}); err == nil {
				t.Error("keys that were given away seal a record")
			}
			if in, err = Unpack(packedIn); err != nil {
				t.Fatal(err)
			}
			if out, err = Unpack(packedOut); err != nil {
				t.Fatal(err)
			}
			if data, err := in.Open(sealed); err != nil || !bytes.Equal(data, []byte{byte(i)}) {
				t.Errorf("suite %#x, record %d: %v, %v", suite, i, data, err)
			}
		}
		packed := in.Pack()
		for n := range packed {
			if _, err := Unpack(packed[:n]); err == nil {
				t.Errorf("keys of %d bytes", n)
			}
		}
		packed[0] = 0
		if _, err := Unpack(packed); err == nil {
			t.Error("keys of no cipher suite")
		}
	}
}
