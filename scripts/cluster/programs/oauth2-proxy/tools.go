//go:build tools

// Package oauth2proxy pins the oauth2-proxy that the mesh asks.
package oauth2proxy

import _ "github.com/oauth2-proxy/oauth2-proxy/v7"
