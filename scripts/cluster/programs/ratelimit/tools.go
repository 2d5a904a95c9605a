//go:build tools

// Package ratelimit pins the rate limit service that the mesh asks.
package ratelimit

import _ "github.com/envoyproxy/ratelimit/src/service_cmd"
