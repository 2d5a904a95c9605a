// Command hbone is an HBONE client and server written independently of Isthmus: HTTP/2 CONNECT over mutual TLS
// with SPIFFE identities, on golang.org/x/net/http2. The tests of tests/netns/interop.rs run it against agents.
//
//	hbone client -ca DIR -identity SPIFFE -to IP:PORT -authority HOST:PORT [...]   one CONNECT, one HTTP request in it
//	hbone server -ca DIR -identity SPIFFE -listen IP:PORT [-mode ...]              tunnels to an echo of its own
package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// How long one whole exchange may take.
const deadline = 10 * time.Second

// headers collects -header name=value flags.
type headers http.Header

func (h headers) String() string { return "" }

func (h headers) Set(text string) error {
	name, value, found := strings.Cut(text, "=")
	if !found {
		return errors.New("not name=value")
	}
	http.Header(h).Add(name, value)
	return nil
}

// answer is what the client prints, as one line of JSON.
type answer struct {
	// Why there is no answer: of the network, TLS or HTTP/2.
	Error string `json:"error,omitempty"`
	// The status of the CONNECT.
	Status int `json:"status,omitempty"`
	// What came through the tunnel, until its end.
	Body   string `json:"body,omitempty"`
	Server string `json:"server,omitempty"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: hbone client|server [flags]")
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	id := identity{}
	flags.StringVar(&id.ca, "ca", "", "directory with ca-cert.pem and ca-key.pem; signed by itself when empty")
	flags.StringVar(&id.name, "identity", "", "the SPIFFE name; no certificate is shown when empty")
	flags.BoolVar(&id.expired, "expired", false, "the certificate's time has passed")
	switch args[0] {
	case "client":
		c := client{headers: headers{}}
		flags.StringVar(&c.roots, "roots", "", "directory with ca-cert.pem to trust")
		flags.StringVar(&c.to, "to", "", "the HBONE port to dial")
		flags.StringVar(&c.authority, "authority", "", "the authority of the CONNECT")
		flags.StringVar(&c.method, "method", http.MethodConnect, "another method than CONNECT")
		flags.StringVar(&c.path, "get", "/", "the path to GET through the tunnel")
		flags.BoolVar(&c.shut, "half-close", false, "ends the sending direction before reading")
		flags.Var(c.headers, "header", "name=value, also several times")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(c.run(id))
	case "server":
		s := server{}
		flags.StringVar(&s.roots, "roots", "", "directory with ca-cert.pem to trust")
		flags.StringVar(&s.listen, "listen", "", "address and port")
		flags.StringVar(&s.mode, "mode", "echo", "echo, refuse (403), reset or goaway")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return s.run(id)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// identity makes a certificate with the SPIFFE name as its only SAN, as Istio's CA does.
type identity struct {
	ca, name string
	expired  bool
}

func (i identity) certificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	name, err := url.Parse(i.name)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		URIs:         []*url.URL{name},
		NotBefore:    now.Add(-2 * time.Hour),
		NotAfter:     now.Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if i.expired {
		leaf.NotAfter = now.Add(-time.Hour)
	}
	parent, signer := leaf, any(key)
	var chain [][]byte
	if i.ca == "" {
		leaf.Subject = pkix.Name{CommonName: "self-signed"}
	} else {
		parent, signer, err = authority(i.ca)
		if err != nil {
			return nil, err
		}
		chain = [][]byte{parent.Raw}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, chain...), PrivateKey: key}, nil
}

func authority(directory string) (*x509.Certificate, any, error) {
	text, err := os.ReadFile(filepath.Join(directory, "ca-cert.pem"))
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, nil, errors.New("ca-cert.pem: no PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	text, err = os.ReadFile(filepath.Join(directory, "ca-key.pem"))
	if err != nil {
		return nil, nil, err
	}
	block, _ = pem.Decode(text)
	if block == nil {
		return nil, nil, errors.New("ca-key.pem: no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	return certificate, key, err
}

func pool(directory string) (*x509.CertPool, error) {
	text, err := os.ReadFile(filepath.Join(directory, "ca-cert.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, errors.New("ca-cert.pem: no certificate")
	}
	return roots, nil
}

// verifyChain checks a peer as the mesh does: the chain and its usage, and no host name.
func verifyChain(roots *x509.CertPool, usage x509.ExtKeyUsage) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("the peer showed no certificate")
		}
		between := x509.NewCertPool()
		for _, certificate := range state.PeerCertificates[1:] {
			between.AddCert(certificate)
		}
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage},
		})
		return err
	}
}

func spiffe(state tls.ConnectionState) string {
	for _, certificate := range state.PeerCertificates {
		for _, name := range certificate.URIs {
			return name.String()
		}
	}
	return ""
}

type client struct {
	roots, to, authority, method, path string
	shut                               bool
	headers                            headers
}

func (c client) run(id identity) answer {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	got, err := c.exchange(ctx, id)
	if err != nil {
		got.Error = err.Error()
	}
	return got
}

func (c client) exchange(ctx context.Context, id identity) (answer, error) {
	roots, err := pool(c.roots)
	if err != nil {
		return answer{}, err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		InsecureSkipVerify: true, // The chain is verified below; there is no host name.
		VerifyConnection:   verifyChain(roots, x509.ExtKeyUsageServerAuth),
	}
	if id.name != "" {
		certificate, err := id.certificate()
		if err != nil {
			return answer{}, err
		}
		config.Certificates = []tls.Certificate{*certificate}
	}
	var server string
	transport := &http2.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
			dialer := tls.Dialer{Config: config}
			connection, err := dialer.DialContext(ctx, "tcp", c.to)
			if err == nil {
				server = spiffe(connection.(*tls.Conn).ConnectionState())
			}
			return connection, err
		},
	}
	defer transport.CloseIdleConnections()
	reader, writer := io.Pipe()
	request := &http.Request{
		Method: c.method,
		URL:    &url.URL{Scheme: "https", Host: c.authority},
		Host:   c.authority,
		Header: http.Header(c.headers),
		Body:   reader,
	}
	if c.method != http.MethodConnect {
		request.URL.Path = "/"
		request.Body = nil
	}
	response, err := transport.RoundTrip(request.WithContext(ctx))
	if err != nil {
		return answer{Server: server}, err
	}
	defer response.Body.Close()
	got := answer{Status: response.StatusCode, Server: server}
	if response.StatusCode != http.StatusOK {
		return got, nil
	}
	fmt.Fprintf(writer, "GET %s HTTP/1.1\r\nHost: hbone\r\nConnection: close\r\n\r\n", c.path)
	if c.shut {
		writer.Close()
	}
	body, err := io.ReadAll(response.Body)
	got.Body = string(body)
	writer.Close()
	return got, err
}

type server struct{ roots, listen, mode string }

// seen is printed by the server for each CONNECT, as one line of JSON.
type seen struct {
	Client    string      `json:"client"`
	Method    string      `json:"method"`
	Authority string      `json:"authority"`
	Headers   http.Header `json:"headers"`
}

func (s server) run(id identity) error {
	roots, err := pool(s.roots)
	if err != nil {
		return err
	}
	certificate, err := id.certificate()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", s.listen)
	if err != nil {
		return err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{*certificate}, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: verifyChain(roots, x509.ExtKeyUsageClientAuth),
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go s.serve(tls.Server(connection, config))
	}
}

func (s server) serve(connection *tls.Conn) {
	defer connection.Close()
	if err := connection.Handshake(); err != nil {
		fmt.Fprintf(os.Stderr, "handshake: %v\n", err)
		return
	}
	client := spiffe(connection.ConnectionState())
	(&http2.Server{}).ServeConn(connection, &http2.ServeConnOpts{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = json.NewEncoder(os.Stdout).Encode(seen{client, r.Method, r.Host, r.Header})
			s.answer(w, r)
		}),
	})
}

func (s server) answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case s.mode == "reset":
		panic(http.ErrAbortHandler)
	case s.mode == "refuse" || r.Method != http.MethodConnect:
		w.WriteHeader(http.StatusForbidden)
		return
	}
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	// A small HTTP/1.1 server of its own at the end of the tunnel.
	input := bufio.NewReader(r.Body)
	request, err := http.ReadRequest(input)
	if err != nil {
		return
	}
	text := "tunnelled " + request.URL.Path
	fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(text), text)
}
