package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
)

// No request of these reaches AMP.
func TestProxyRefusesWhatIsHostile(t *testing.T) {
	fake, _ := configure(t)
	address, _ := startProxy(t)
	_, port, _ := net.SplitHostPort(address)
	request := func(line string, fields ...string) string {
		head := line + " HTTP/1.1\r\n"
		if len(fields) == 0 || !strings.HasPrefix(fields[0], "Host:") {
			head += "Host: " + address + "\r\n"
		}
		return head + strings.Join(append(fields, "Connection: close"), "\r\n") + "\r\n\r\n"
	}
	tests := map[string]struct {
		request string
		status  int
	}{
		"rebound name":               {request("GET /assets", "Host: evil.example:"+port), 421},
		"rebound name without port":  {request("GET /assets", "Host: evil.example"), 421},
		"localhost as a prefix":      {request("GET /assets", "Host: localhost.evil.example:"+port), 421},
		"address as a prefix":        {request("GET /assets", "Host: 127.0.0.1.evil.example:"+port), 421},
		"another port":               {request("GET /assets", "Host: 127.0.0.1:1"), 421},
		"no port":                    {request("GET /assets", "Host: 127.0.0.1"), 421},
		"user information in Host":   {request("GET /assets", "Host: a@"+address), 400},
		"empty Host":                 {request("GET /assets", "Host:"), 421},
		"no Host":                    {"GET /assets HTTP/1.0\r\n\r\n", 421},
		"Origin of another page":     {request("GET /assets", "Origin: https://evil.example"), 403},
		"Origin null":                {request("GET /assets", "Origin: null"), 403},
		"Origin of the proxy itself": {request("GET /assets", "Origin: http://"+address), 403},
		"empty Origin":               {request("GET /assets", "Origin:"), 403},
		"image in a page":            {request("GET /assets", "Sec-Fetch-Site: cross-site"), 403},
		"page of the same site":      {request("GET /assets", "Sec-Fetch-Site: same-site"), 403},
		"page of the proxy itself":   {request("GET /assets", "Sec-Fetch-Site: same-origin"), 403},
		"two Sec-Fetch-Site":         {request("GET /assets", "Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"), 403},
		"preflight":                  {request("OPTIONS /assets", "Origin: https://evil.example", "Access-Control-Request-Method: PUT"), 403},
		"CONNECT":                    {"CONNECT evil.example:443 HTTP/1.1\r\nHost: " + address + "\r\nConnection: close\r\n\r\n", 421},
		"CONNECT to itself":          {"CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\nConnection: close\r\n\r\n", 405},
		"whole URL":                  {request("GET http://" + address + "/assets"), 400},
		"whole URL of elsewhere":     {request("GET http://evil.example/assets"), 421},
		"OPTIONS *":                  {request("OPTIONS *"), 400},
		"Upgrade":                    {"GET /assets HTTP/1.1\r\nHost: " + address + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400},
		"Upgrade to HTTP/2":          {"GET /assets HTTP/1.1\r\nHost: " + address + "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", 400},
		"Connection: upgrade alone":  {"GET /assets HTTP/1.1\r\nHost: " + address + "\r\nConnection: close, uPgrade\r\n\r\n", 400},
		"dots":                       {request("GET /../admin"), 400},
		"dots within":                {request("GET /assets/../../admin"), 400},
		"one dot":                    {request("GET /./assets"), 400},
		"dots at the end":            {request("GET /assets/.."), 400},
		"escaped dots":               {request("GET /%2e%2e/admin"), 400},
		"half escaped dots":          {request("GET /.%2E/admin"), 400},
		"dots escaped twice":         {request("GET /%252e%252e/admin"), 400},
		"dots escaped three times":   {request("GET /%25252e%25252e/admin"), 400},
		"dots with a parameter":      {request("GET /..;/admin"), 400},
		"dots with parameter x":      {request("GET /..;x=1/admin"), 400},
		"dots, escaped semicolon":    {request("GET /..%3b/admin"), 400},
		"escaped slash":              {request("GET /..%2fadmin"), 400},
		"escaped slash in a segment": {request("GET /assets/x%2Fregister"), 400},
		"backslash":                  {request(`GET /..\admin`), 400},
		"escaped backslash":          {request("GET /..%5cadmin"), 400},
		"two slashes":                {request("GET //evil.example/assets"), 400},
		"two slashes within":         {request("GET /assets//register"), 400},
		"three slashes":              {request("GET ///assets"), 400},
		"escaped zero":               {request("GET /assets%00/x"), 400},
		"escaped line break":         {request("GET /assets/%0d%0aX:%20y"), 400},
		"overlong dots":              {request("GET /%c0%ae%c0%ae/admin"), 400},
		"escaped fragment":           {request("GET /assets#x"), 400},
		"broken escape":              {request("GET /assets/%zz"), 400},
		"no slash":                   {request("GET assets"), 400},
		"issuance":                   {request("POST /assets/issue", "Content-Length: 2") + "{}", 403},
		"a mutation by GET":          {request("GET /assets/x/register"), 403},
		"distribution by GET":        {request("GET /assets/x/distributions/create/"), 403},
		"the same by HEAD":           {request("HEAD /assets/x/distributions/create/"), 403},
		"the same, escaped":          {request("GET /assets/x/distributions/%63reate"), 403},
		"unknown route":              {request("GET /admin"), 403},
		"unknown method":             {request("TRACE /assets"), 403},
		"method in lower case":       {request("get /assets"), 403},
		"method by a field":          {request("DELETE /assets", "X-HTTP-Method-Override: GET"), 403},
		"login":                      {request("POST /user/obtain_token", "Content-Length: 2") + "{}", 403},
		"login, escaped":             {request("POST /user/obtain%5Ftoken", "Content-Length: 2") + "{}", 403},
		"login below another path":   {request("POST /x/user/obtain_token/", "Content-Length: 2") + "{}", 403},
		"refresh":                    {request("GET /user/refresh-token"), 403},
		"password":                   {request("POST /user/change-password", "Content-Length: 2") + "{}", 403},
		"GET with a body":            {request("GET /assets", "Content-Length: 2") + "{}", 400},
		"GET with chunks":            {request("GET /assets", "Transfer-Encoding: chunked") + "2\r\n{}\r\n0\r\n\r\n", 400},
		"two lengths":                {request("PUT /assets/x/lock", "Content-Length: 2", "Content-Length: 3") + "{}", 400},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := rawExchange(t, address, tt.request)
			if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", tt.status)) && !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.0 %d ", tt.status)) {
				t.Errorf("%q is answered %q, want %d", tt.request, got, tt.status)
			}
			if head, body, _ := strings.Cut(got, "\r\n\r\n"); strings.Contains(head, "application/json") && body != "" {
				var why map[string]string
				if err := json.Unmarshal([]byte(body), &why); err != nil || len(why["detail"]) < 10 {
					t.Errorf("%q says not why: %q", tt.request, got)
				}
			}
		})
	}
	if counts := fake.Counts(); len(counts) > 0 {
		t.Errorf("AMP was asked for %v", counts)
	}
}

func TestProxyLetsWhatAUserTypesPass(t *testing.T) {
	configure(t)
	address, _ := startProxy(t)
	_, port, _ := net.SplitHostPort(address)
	for _, fields := range []string{"Host: " + address + "\r\nSec-Fetch-Site: none", "Host: LOCALHOST:" + port, "Host: [::1]:" + port} {
		if got := rawExchange(t, address, "GET /managers/me HTTP/1.1\r\n"+fields+"\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("%q: %q", fields, got)
		}
	}
}
