// Package identity turns what a client shows when it connects (engine.Login) into who it is and
// what it may do (engine.Identity).
//
// There are four ways to prove an identity, and a Chain has any number of them. It asks them in
// this order:
//
//   - Certificates: a client certificate that TLS has verified, mapped by rules;
//   - Tokens: a token from a file of salted hashes;
//   - JWT: a signed token of an identity provider;
//   - Callout: a service of the user's own, asked over HTTP.
//
// The first that recognises the kind of credentials decides. An error that wraps
// engine.ErrRetryLogin means "cannot say now, come again". Every other error is a denial. The texts
// of both go to the client, so they hold nothing secret.
//
// All types are safe for use by several goroutines. Files and keys are kept up to date in
// Chain.Run. Apart from it, there is one goroutine for a fetch of keys that is under way, which
// jwksTimeout ends, and one for each call of the callout. Logins with the same credentials share
// that. It waits for a place and then for the answer, each for CalloutConfig.Timeout at most, and
// does not end with the login. Time is an argument: each configuration has a Now.
package identity
