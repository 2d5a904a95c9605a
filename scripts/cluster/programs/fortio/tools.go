//go:build tools

// Package fortio pins the load generator of Istio's tasks.
package fortio

import _ "fortio.org/fortio"
