package hostile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"slices"
	"time"
)

// TLSConfig returns a new client configuration that trusts the server. Which
// protocols to offer is left to the caller. With any other configuration the
// certificate is unknown to the client. It is nil for an HTTP1 server.
func (s *Server) TLSConfig() *tls.Config {
	if s.protocol == HTTP1 {
		return nil
	}
	return &tls.Config{RootCAs: s.roots}
}

// serverTLS returns the server's side of the TLS configuration.
func (s *Server) serverTLS(certificate tls.Certificate) *tls.Config {
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	switch s.protocol {
	case HTTP1TLS:
		config.NextProtos = []string{"http/1.1"}
	case HTTP2AndHTTP1:
		config.NextProtos = []string{"h2", "http/1.1"}
	case HTTP2:
		config.NextProtos = []string{"h2"}
		// crypto/tls lets a client that offers http/1.1 pass where the server only
		// knows h2. A name that no client offers gets it the alert after all.
		strict := config.Clone()
		strict.NextProtos = []string{"none"}
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if len(hello.SupportedProtos) > 0 && !slices.Contains(hello.SupportedProtos, "h2") {
				return strict, nil
			}
			return nil, nil
		}
	}
	return config
}

// newCertificate makes a certificate of the loopback host that nobody but
// itself has signed.
func newCertificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic("hostile: " + err.Error())
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: "hostile"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic("hostile: " + err.Error())
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic("hostile: " + err.Error())
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
