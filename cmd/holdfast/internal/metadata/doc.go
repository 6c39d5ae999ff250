// Package metadata keeps AWS credentials warm and hands them to the processes
// of a machine, in the two ways every AWS SDK knows: the instance metadata
// service of EC2 (IMDSv2) and the container credentials of ECS.
//
// A [Role] holds the credentials of one role. Its Run refreshes them well
// before the SDKs begin to ask for new ones, one CreateSession at a time; a
// failed refresh leaves what is there until it expires. No request ever waits
// for AWS but one that comes before the first credentials do.
//
// A [Server] answers for any number of roles on any number of [Listener]s, TCP
// or unix sockets. What it refuses, whoever asks:
//
//   - a Host that is no address of this machine (DNS rebinding), a request
//     that a browser made (Origin, Sec-Fetch-Site) or a proxy forwarded
//     (X-Forwarded-For), one with a body, one with more than 8 KiB of headers;
//   - credentials beyond the loopback, unless the role has an authorization
//     token and the request brings it;
//   - credentials of a role that names the users it is for, to anybody else.
//
// Connections are bounded in number and in time. At the bound the one that has
// been silent longest makes room, so that connections which only linger keep
// nobody out. IMDS tokens are kept nowhere: each proves itself by a MAC.
//
// Nothing secret is logged. The log says who got which session, once for each
// connection and session.
package metadata
