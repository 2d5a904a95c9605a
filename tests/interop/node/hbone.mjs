// An HBONE client and server written independently of Isthmus: HTTP/2 CONNECT over mutual TLS with SPIFFE identities,
// on Node's own `http2` and `tls` (nghttp2 and OpenSSL). The tests of tests/netns/node.rs run it against agents.
//
//   node hbone.mjs client --cert PEM --key PEM --roots PEM --to IP:PORT --authority HOST:PORT [...]
//       one CONNECT and one HTTP request in it; prints one line of JSON
//   node hbone.mjs server --cert PEM --key PEM --roots PEM --listen IP:PORT [--mode echo|refuse|reset|goaway]
//       tunnels to an echo of its own; prints a line of JSON for each CONNECT

import { readFileSync } from 'node:fs'
import http2 from 'node:http2'
import tls from 'node:tls'
import { parseArgs } from 'node:util'

/** How long one whole exchange may take, in milliseconds. */
const DEADLINE = 10_000

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    cert: { type: 'string' },
    key: { type: 'string' },
    roots: { type: 'string' },
    to: { type: 'string' },
    listen: { type: 'string' },
    authority: { type: 'string' },
    method: { type: 'string', default: 'CONNECT' },
    get: { type: 'string', default: '/' },
    header: { type: 'string', multiple: true, default: [] },
    'half-close': { type: 'boolean', default: false },
    mode: { type: 'string', default: 'echo' },
  },
})

const read = (file) => (file === undefined ? undefined : readFileSync(file))
const credentials = { cert: read(values.cert), key: read(values.key), ca: read(values.roots) }

/** The first URI among the names of a peer's certificate. */
function spiffe(socket) {
  const names = socket.getPeerCertificate().subjectaltname ?? ''
  const uri = names.split(', ').find((name) => name.startsWith('URI:'))
  return uri?.slice('URI:'.length) ?? ''
}

function address(text) {
  const colon = text.lastIndexOf(':')
  return { host: text.slice(0, colon), port: Number(text.slice(colon + 1)) }
}

function client() {
  const answer = { status: 0, body: '', error: '', server: '' }
  let done = false
  const finish = (error) => {
    if (done) return
    done = true
    if (error) answer.error = String(error.message ?? error) || 'failed'
    process.stdout.write(`${JSON.stringify(answer)}\n`, () => process.exit(0))
  }
  setTimeout(() => finish('the deadline passed'), DEADLINE)
  const socket = tls.connect({
    ...address(values.to),
    ...credentials,
    ALPNProtocols: ['h2'],
    minVersion: 'TLSv1.3',
    // There is no host name; the chain is verified all the same.
    checkServerIdentity: () => undefined,
  })
  socket.on('error', finish)
  socket.on('secureConnect', () => {
    answer.server = spiffe(socket)
    const session = http2.connect(`https://${values.authority}`, { createConnection: () => socket })
    session.on('error', finish)
    session.on('close', () => finish('the connection was closed'))
    exchange(session, answer, finish)
  })
}

function exchange(session, answer, finish) {
  const headers = { ':method': values.method, ':authority': values.authority }
  if (values.method !== 'CONNECT') Object.assign(headers, { ':path': '/', ':scheme': 'https' })
  for (const header of values.header) {
    const equals = header.indexOf('=')
    headers[header.slice(0, equals)] = header.slice(equals + 1)
  }
  const stream = session.request(headers, { endStream: values.method !== 'CONNECT' })
  stream.on('error', finish)
  stream.on('response', (head) => {
    answer.status = head[':status']
    if (answer.status !== 200) return finish()
    stream.write(`GET ${values.get} HTTP/1.1\r\nHost: hbone\r\nConnection: close\r\n\r\n`)
    if (values['half-close']) stream.end()
  })
  stream.setEncoding('utf8')
  stream.on('data', (text) => (answer.body += text))
  stream.on('end', () => finish())
}

function server() {
  const listening = http2.createSecureServer({
    ...credentials,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
  })
  listening.on('tlsClientError', (error) => console.error(`handshake: ${error.message}`))
  listening.on('sessionError', (error) => console.error(`session: ${error.message}`))
  listening.on('stream', (stream, headers) => {
    stream.on('error', (error) => console.error(`stream: ${error.message}`))
    const { socket } = stream.session
    const { ':method': method, ':authority': authority, ...others } = headers
    console.log(JSON.stringify({ client: spiffe(socket), method, authority, headers: others }))
    serve(stream, method)
  })
  const { host, port } = address(values.listen)
  listening.listen(port, host)
}

function serve(stream, method) {
  if (values.mode === 'reset') return stream.close(http2.constants.NGHTTP2_CANCEL)
  if (values.mode === 'goaway') return stream.session.destroy(undefined, http2.constants.NGHTTP2_NO_ERROR)
  if (values.mode === 'refuse' || method !== 'CONNECT') {
    return stream.respond({ ':status': 403 }, { endStream: true })
  }
  stream.respond({ ':status': 200 })
  // A small HTTP/1.1 server of its own at the end of the tunnel.
  let text = ''
  stream.setEncoding('utf8')
  stream.on('data', (part) => {
    text += part
    if (!text.includes('\r\n\r\n')) return
    const body = `tunnelled ${text.split(' ')[1]}`
    text = ''
    stream.end(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`)
  })
}

const command = { client, server }[positionals[0]]
if (command === undefined) {
  console.error('usage: hbone.mjs client|server [flags]')
  process.exit(1)
}
command()
