// Frames and one connection of the distmsg protocol, written from ../../protocol.md alone.
import net from 'node:net';
import { EventEmitter } from 'node:events';
import { decode, encode } from '@msgpack/msgpack';

export const K = {
  hello: 1, welcome: 2, ping: 3, pong: 4, error: 5, drain: 6, credit: 7, bye: 8, reassert: 9, leave: 10, left: 11, members: 12, relogin: 13, bind: 16, bound: 17, unbind: 18,
  unbound: 19, lookup: 20, found: 21, kick: 22, send: 32, deliver: 33, ack: 34, outcome: 35, not_here: 36,
};
const words = {
  0: 'ok', 1: 'acked', 16: 'rejected', 32: 'no_route', 33: 'unreachable', 34: 'overflow', 35: 'expired',
  36: 'registry_unavailable', 48: 'draining', 64: 'denied', 65: 'too_large', 66: 'taken', 67: 'superseded',
  68: 'bad_id', 80: 'timeout', 81: 'lost',
};
export const word = (code) => words[code] ?? `code_${code}`;
// delivered says whether a message reached its receiver, also with a code of a later version: yes,
// no or unknown.
export const delivered = (code) => (code >= 1 && code <= 31 ? 'yes' : code >= 32 && code <= 79 ? 'no' : 'unknown');
const faults = [
  '', 'zero_length', 'frame_too_large', 'bad_length', 'wrong_type', 'too_deep', 'too_many', 'bad_value', 'unknown_kind',
  'unexpected_kind', 'bad_version', 'unauthenticated', 'hello_timeout', 'idle_timeout', 'slow_consumer', 'credit_exceeded',
  'bad_token', 'going_away', 'fenced', 'replaced', 'session_ended', 'internal',
];
export const faultName = (fault) => faults[fault] ?? `fault_${fault}`;
const limitNames = ['max_payload', 'max_frame', 'max_ids', 'max_in_flight', 'credit', 'max_ttl', 'default_ttl',
  'heartbeat', 'idle_timeout', 'resume_window'];
export const NONE = new Uint8Array(0);
export const bytes = (v) => (typeof v === 'string' ? new TextEncoder().encode(v) : v ?? NONE);

// shapes has the types of the fields behind the kind, of the frames that a node sends: Number, Bin,
// Str, Array.
const shapes = {
  [K.welcome]: 'NNSNBBNAA', [K.ping]: 'N', [K.pong]: 'N', [K.error]: 'NNNNS', [K.drain]: 'NNA', [K.credit]: 'N', [K.reassert]: 'N',
  [K.left]: '', [K.members]: 'A', [K.relogin]: 'NS', [K.bound]: 'NA', [K.unbound]: 'NA', [K.found]: 'NA', [K.kick]: 'SN', [K.deliver]: 'BSSNNNB', [K.outcome]: 'NNSB',
};
const typed = {
  N: (v) => Number.isInteger(v) && v >= 0, B: (v) => v instanceof Uint8Array, S: (v) => typeof v === 'string', A: Array.isArray,
};
const wellShaped = (f) => Array.isArray(f) && [...shapes[f[0]]].every((type, i) => typed[type](f[i + 1]));
const known = new Set(Object.values(K));
const onlyClients = new Set([K.hello, K.bye, K.leave, K.bind, K.unbind, K.lookup, K.send, K.ack, K.not_here, 48, 50, 64, 66]); // multicast, not_here_many, watch, unwatch

// kindOf reads the kind of a frame and nothing else: what stands behind one that is not known need
// not be msgpack.
export function kindOf(body) {
  const head = (body[0] & 0xf0) === 0x90 ? 1 : { 0xdc: 3, 0xdd: 5 }[body[0]];
  const width = { 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd3: 8 }[body[head]] ?? 0;
  const kind = decode(body.subarray(head, head + 1 + width));
  if (head === undefined || !Number.isInteger(kind) || kind < 0 || kind > 127) throw new Error('not a frame');
  return kind;
}

// frame encodes one frame with its length prefix.
export function frame(...fields) {
  const body = encode(fields);
  const out = Buffer.allocUnsafe(4 + body.length);
  out.writeUInt32BE(body.length);
  out.set(body, 4);
  return out;
}

// Link is one connection, from connect to its end. Events: welcome, frame (array), closed (fault name or '').
export class Link extends EventEmitter {
  limits = {};
  open = false;
  fault = '';
  pending = new Map(); // sends with ack that were written, by seq
  requests = new Map(); // bind, unbind, lookup, by seq
  delivering = 0; // messages that the application is at
  used = 0;
  total = 0;
  #buffer = Buffer.alloc(0);

  constructor(address, hello) {
    super();
    const colon = address.lastIndexOf(':');
    this.address = address;
    this.socket = net.connect({ host: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)), noDelay: true });
    this.socket.on('connect', () => this.socket.write(hello));
    this.socket.on('data', (chunk) => this.#read(chunk));
    this.socket.on('error', () => {}); // close follows
    this.socket.on('close', () => { this.open = false; clearInterval(this.timer); this.emit('closed', this.fault); });
    this.heard = Date.now();
  }

  write(...fields) { if (this.open) this.socket.write(frame(...fields)); }

  #read(chunk) {
    this.heard = Date.now();
    this.#buffer = this.#buffer.length ? Buffer.concat([this.#buffer, chunk]) : chunk;
    try {
      for (;;) {
        if (this.#buffer.length < 4) return;
        const size = this.#buffer.readUInt32BE();
        if (size === 0 || size > Math.max(this.limits.max_frame ?? 0, 1 << 20)) throw new Error(`a frame of ${size} bytes`);
        if (this.#buffer.length < 4 + size) return;
        const body = this.#buffer.subarray(4, 4 + size);
        this.#buffer = this.#buffer.subarray(4 + size);
        const kind = kindOf(body);
        if (onlyClients.has(kind) || (kind === K.welcome && this.open)) throw new Error(`a frame of kind ${kind} from a node`);
        if (known.has(kind)) this.#frame(decode(body)); // else a later version's: skipped
      }
    } catch (err) { // not a frame of this protocol: nothing that follows can be trusted
      this.socket.destroy(err);
    }
  }

  #frame(f) {
    if (!wellShaped(f)) throw new Error(`not a frame of kind ${f[0]}`);
    switch (f[0]) {
      case K.welcome:
        [, , this.features] = f;
        limitNames.forEach((name, i) => { this.limits[name] = f[8][i]; });
        this.total = this.limits.credit;
        this.open = true;
        this.timer = setInterval(() => this.#watch(), this.limits.heartbeat / 2);
        this.emit('welcome', f);
        return;
      case K.ping: this.write(K.pong, f[1]); return;
      case K.credit: this.total = Math.max(this.total, f[1]); break;
      case K.error: if (f[2] & 1) this.fault = faultName(f[1]); break;
    }
    this.emit('frame', f);
  }

  #watch() { // a host that vanishes does not close the connection
    const silence = Date.now() - this.heard;
    if (silence > this.limits.idle_timeout) this.socket.destroy();
    else this.write(K.ping, 0); // as hello has promised, also while the node is heard of
  }
}
