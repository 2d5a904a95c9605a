//go:build tools

// Package httpbin pins the server of Istio's sample of this name.
package httpbin

import _ "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin"
