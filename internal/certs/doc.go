// Package certs keeps certificates, keys and CAs for crypto/tls up to date with their files.
//
// [Open] reads the files of a [Config]. A file that cannot be used is an error that names it.
// [Store.Run] then looks at the files every few seconds and takes what has changed. [Store.Reload]
// does so at once, for example on SIGHUP. Connections are not affected: a new certificate counts
// for handshakes that begin after it was read.
//
// All files of a store are taken together or not at all. A certificate and its key are seldom
// replaced at the same instant, so Run waits until the files look the same twice, and does not use
// a certificate with a key that is not its own. While files cannot be used, the store keeps what it
// has, and says why in the log, once.
//
// [Store.Server] returns a configuration for servers that always has the current files.
// [Store.Client] returns one for a single connection: a client that dials asks for a new one each
// time. So both leave all verification to crypto/tls. A configuration that verifies connections
// itself (InsecureSkipVerify with VerifyConnection) would not need to be asked for again, but it
// would not learn the name of a server that is an IP address: ConnectionState.ServerName is empty
// then.
package certs
