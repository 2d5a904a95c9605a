// An external authorizer with the Open Policy Agent inside: Envoy's ext_authz over gRPC, decided by Rego.
//
//	opa ADDRESS POLICY
//
// The input and the decision `data.envoy.authz.allow` have the form of OPA's own plugin for Envoy
// (https://www.openpolicyagent.org/docs/envoy), which cannot be had as a Go module: policies written for it decide here too.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoy "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/open-policy-agent/opa/v1/rego"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
)

type authorizer struct{ query rego.PreparedEvalQuery }

// A decision that is more than a boolean.
type decision struct {
	Allowed  bool              `json:"allowed"`
	Headers  map[string]string `json:"headers"`
	ToRemove []string          `json:"request_headers_to_remove"`
	ToClient map[string]string `json:"response_headers_to_add"`
	Status   int               `json:"http_status"`
	Body     string            `json:"body"`
}

func input(request *auth.CheckRequest) (map[string]any, error) {
	text, err := protojson.Marshal(request)
	if err != nil {
		return nil, err
	}
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	sent := request.GetAttributes().GetRequest().GetHttp()
	target, err := url.Parse(sent.GetPath())
	if err != nil {
		return nil, err
	}
	all["parsed_path"] = strings.Split(strings.TrimPrefix(target.Path, "/"), "/")
	all["parsed_query"] = target.Query()
	all["truncated_body"] = sent.GetHeaders()["x-envoy-auth-partial-body"] == "true"
	body := sent.GetBody()
	if body == "" {
		body = string(sent.GetRawBody())
	}
	if body != "" && strings.HasPrefix(sent.GetHeaders()["content-type"], "application/json") {
		var parsed any
		if err := json.Unmarshal([]byte(body), &parsed); err != nil {
			return nil, err
		}
		all["parsed_body"] = parsed
	}
	return all, nil
}

func (a authorizer) decide(ctx context.Context, request *auth.CheckRequest) (decision, error) {
	all, err := input(request)
	if err != nil {
		return decision{}, err
	}
	results, err := a.query.Eval(ctx, rego.EvalInput(all))
	if err != nil || len(results) == 0 {
		return decision{}, errors.Join(err, errors.New("the policy is undefined"))
	}
	value := results[0].Expressions[0].Value
	if allowed, ok := value.(bool); ok {
		return decision{Allowed: allowed}, nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		return decision{}, err
	}
	var decided decision
	err = json.Unmarshal(text, &decided)
	return decided, err
}

func options(headers map[string]string) (all []*core.HeaderValueOption) {
	for key, value := range headers {
		all = append(all, &core.HeaderValueOption{Header: &core.HeaderValue{Key: key, Value: value}})
	}
	return all
}

func (a authorizer) Check(ctx context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	decided, err := a.decide(ctx, request)
	if err != nil {
		return nil, err
	}
	if decided.Allowed {
		ok := &auth.OkHttpResponse{Headers: options(decided.Headers), HeadersToRemove: decided.ToRemove,
			ResponseHeadersToAdd: options(decided.ToClient)}
		return &auth.CheckResponse{Status: &status.Status{Code: int32(codes.OK)},
			HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: ok}}, nil
	}
	if decided.Status == 0 {
		decided.Status = http.StatusForbidden
	}
	denied := &auth.DeniedHttpResponse{Status: &envoy.HttpStatus{Code: envoy.StatusCode(decided.Status)},
		Headers: options(decided.Headers), Body: decided.Body}
	return &auth.CheckResponse{Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: denied}}, nil
}

func main() {
	address, policy := os.Args[1], os.Args[2]
	query, err := rego.New(rego.Query("data.envoy.authz.allow"), rego.Load([]string{policy}, nil)).
		PrepareForEval(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	auth.RegisterAuthorizationServer(server, authorizer{query})
	log.Fatal(server.Serve(listener))
}
