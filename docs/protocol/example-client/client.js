// A small distmsg client, written from ../../protocol.md alone: one session, one connection at a time.
//
//   node client.js --node 127.0.0.1:7400 --id alice                        lines "bob hello" from the terminal are sent
//   node client.js --node 127.0.0.1:7400 --id alice --send bob:hello       send, print the outcome, leave
//   node client.js --node 127.0.0.1:7400 --id bob --echo                   answer every message with its own payload
import readline from 'node:readline';
import { EventEmitter } from 'node:events';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { bytes, delivered, faultName, frame, K, Link, NONE, word } from './link.js';

const ACK = 1, REPORT = 2; // flags of send and deliver
const REPLACE = 1; // of hello
const RESUMED = 1; // of welcome
const SHORT_NOT_HERE = 2; // features
const HEARTBEAT = 1000; // ms; promised in hello, kept by Link
const LASTING = 5000; // ms after which a connection has shown that its node can be used
const retryable = (code) => code >= 32 && code <= 63;
const portions = (all, n) => Array.from({ length: Math.ceil(all.length / n) }, (_, i) => all.slice(i * n, (i + 1) * n));
// dialable: to connect to a port that is none throws.
const dialable = (addr) => typeof addr === 'string' && addr.length <= 255 && /^.+:[1-9]\d{0,4}$/.test(addr) && Number(addr.slice(addr.lastIndexOf(':') + 1)) < 65536;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Client keeps a session. onDeliver(message) returns, or promises, { reply } (acked), { reject: reason } or { ignore: true }.
// Events: welcome ({ resumed, session }), kick (id), error_frame ({ fault, message }), gone (fault: it gave up).
export class Client extends EventEmitter {
  constructor({ nodes, onDeliver = () => ({}), credentials = NONE }) {
    super();
    Object.assign(this, { nodes, onDeliver, credentials: bytes(credentials), session: NONE, secret: NONE, link: null });
    this.held = new Map(); // id -> { epoch; and while a bind is under way, asked: its epoch, kicked: that of the latest kick }
    this.queue = []; // sends that wait for a connection, credit or their turn
    this.seq = 0;
    this.known = nodes; // as configured
    this.failures = 0; // connections in a row that failed, or did not last
    this.leaving = false;
    this.apart = false; // the session was refused: is it the node that does not know it, or are the credentials wrong?
  }

  // connect resolves with the first welcome; from then on the client reconnects by itself.
  connect() { return new Promise((resolve) => { this.once('welcome', resolve); this.#dial(this.nodes[0]); }); }

  #dial(address, replace = true) {
    const [session, secret] = this.apart ? [NONE, NONE] : [this.session, this.secret];
    const link = new Link(address, frame(K.hello, 1, 1, SHORT_NOT_HERE, this.credentials, session, secret, replace ? REPLACE : 0, 'example/1', HEARTBEAT));
    link.on('welcome', (f) => this.#welcome(link, f));
    link.on('frame', (f) => this.#frame(link, f));
    link.on('closed', (fault) => this.#closed(link, fault));
  }

  #welcome(link, f) {
    const resumed = (f[7] & RESUMED) !== 0;
    const old = this.link;
    link.began = Date.now();
    [this.session, this.secret, this.link, this.apart] = [f[5], f[6], link, false];
    this.#members(f[9]);
    this.#bindAgain([...this.held].filter(([, h]) => !resumed || h.asked !== undefined).map(([id, h]) => [id, h.asked ?? h.epoch]));
    if (old?.open) this.#leave(old); // moved by a drain or relogin
    this.emit('welcome', { resumed, session: this.session, limits: link.limits, node: f[3] });
    this.flush();
  }

  // #members skips entries that are wrong, and those of nodes that take no clients.
  #members(all) { this.nodes = [...new Set([...this.known, ...all.map((m) => (Array.isArray(m) ? m[1] : '')).filter(dialable)])]; }

  // #leave ends a connection without a gap: after left no deliver comes, and what is open has been
  // answered.
  async #leave(link) {
    const left = new Promise((done) => link.once('left', done));
    link.write(K.leave);
    await Promise.race([left, new Promise((done) => link.once('closed', done))]);
    while (link.open && link.pending.size + link.requests.size + link.delivering > 0) await sleep(50);
    link.socket.end();
  }

  async #closed(link, fault) {
    for (const s of link.pending.values()) s.end(81, 'the connection ended'); // written, so never unreachable
    for (const r of link.requests.values()) r.reject(new Error('the connection ended'));
    if (link !== this.link && this.link?.open) return; // left behind by a drain or relogin
    if (this.leaving || fault === 'replaced') { this.emit('gone', fault); return; }
    const resuming = this.session.length > 0;
    if (fault === 'bad_version' || (fault === 'unauthenticated' && !resuming)) { this.emit('gone', fault); return; }
    if (link.began && Date.now() - link.began > LASTING) this.failures = 0;
    if (fault === 'session_ended') this.session = this.secret = NONE;
    this.apart = fault === 'unauthenticated' && !this.apart;
    if (!this.apart && fault !== 'session_ended') await sleep(Math.random() * Math.min(5000, 50 * 2 ** this.failures)); // full jitter
    if (!this.leaving) this.#dial(this.nodes[this.failures++ % this.nodes.length]);
  }

  #frame(link, f) {
    switch (f[0]) {
      case K.outcome: {
        const s = link.pending.get(f[1]);
        if (s) s.end(f[2], f[3], f[4]); // else it ended before: ignored
        this.flush();
        break;
      }
      case K.deliver: this.#deliver(link, f); break;
      case K.bound: case K.unbound: case K.found: link.requests.get(f[1])?.resolve(f[2]); break;
      case K.kick: {
        const h = this.held.get(f[1]);
        if (h?.asked !== undefined) h.kicked = Math.max(h.kicked ?? 0, f[2]);
        else if (h && f[2] > h.epoch) this.#kicked(f[1]);
        break;
      }
      case K.credit: this.flush(); this.emit('credit', f[1]); break;
      case K.error: this.emit('error_frame', { fault: faultName(f[1]), kind: f[3], message: f[5] }); break;
      case K.members: this.#members(f[1]); break;
      case K.left: link.emit('left'); break;
      case K.reassert: setTimeout(() => this.#assertAll(), Math.random() * f[1]); break;
      case K.drain: setTimeout(() => this.#move(link, f[3]), Math.random() * f[1]); break;
      case K.relogin: setTimeout(() => this.#renew(link), Math.random() * f[1] / 4); break; // the rest is for connecting
    }
  }

  #move(link, addrs) {
    const to = [...addrs.filter(dialable), ...this.nodes].find((n) => n !== link.address);
    if (to && link === this.link && link.open) this.#dial(to, false);
  }

  // #renew logs in again, at the same node.
  #renew(link) {
    if (link === this.link && link.open) this.#dial(link.address, false);
  }

  // #assertAll binds everything again under its epoch. Where a bind is under way, that comes after
  // it.
  #assertAll() {
    const idle = [...this.held].filter(([, h]) => { h.again = h.asked !== undefined; return !h.again; });
    if (this.link?.open) this.#bindAgain(idle.map(([id, h]) => [id, h.epoch]));
  }

  #kicked(id) { this.held.delete(id); this.emit('kick', id); }

  async #deliver(link, f) {
    const [, token, to, from, ttl, flags, epoch, payload] = f;
    const h = this.held.get(to);
    if (!h || (h.asked === undefined && h.epoch < epoch)) {
      // Without the feature all fields must be as they came, which they are not if from was no
      // UTF-8.
      if (link.features & SHORT_NOT_HERE) link.write(K.not_here, token, to, '', 0, 0, epoch, NONE);
      else link.write(K.not_here, token, to, from, ttl, flags, epoch, payload);
      return;
    }
    let answer;
    link.delivering++;
    try {
      answer = await this.onDeliver({ to, from, ttl, payload });
    } catch (err) {
      answer = { reject: String(err) };
    }
    link.delivering--;
    if (!(flags & ACK) || answer?.ignore) return;
    if (answer?.reject !== undefined) link.write(K.ack, token, 16, answer.reject.slice(0, 60), NONE); // 60 characters: under 255 bytes
    else link.write(K.ack, token, 1, '', bytes(answer?.reply));
  }

  // #request sends a bind, unbind or lookup and resolves with the results. What the frames behind
  // the answer mean may depend on it, so heard is called with the results before those are read.
  #request(kind, heard, ...fields) {
    const { link } = this, seq = ++this.seq;
    return new Promise((resolve, reject) => {
      if (!link?.open) { reject(new Error('not connected')); return; }
      link.requests.set(seq, { reject, resolve: (results) => { heard(results); resolve(results); } });
      link.write(kind, seq, ...fields);
    }).finally(() => link?.requests.delete(seq));
  }

  // #bindAgain repeats binds after a reconnect, and after an answer that asks for patience.
  #bindAgain(pairs) { this.#bindAll(pairs, 0).catch(() => {}); } // the next welcome brings us here again

  // #bindAll binds any number of IDs, in as many frames as the node's limit needs.
  async #bindAll(pairs, policy) {
    return (await Promise.all(portions(pairs, this.link?.limits.max_ids ?? 1).map((part) => this.#bind(part, policy)))).flat();
  }

  async #bind(pairs, policy) {
    for (const [id, epoch] of pairs) this.held.set(id, { epoch: 0, ...this.held.get(id), asked: epoch });
    const results = await this.#request(K.bind, (all) => this.#bound(pairs, all), policy, pairs);
    return results.map(([code, epoch]) => ({ word: word(code), epoch }));
  }

  #bound(pairs, results) {
    const later = [];
    results.forEach(([code, epoch], i) => {
      const [id, asked] = pairs[i], h = this.held.get(id);
      if (!h) return;
      if (code === 0) {
        this.held.set(id, { epoch });
        if (h.kicked > epoch) this.#kicked(id);
        else if (h.again) this.#bindAgain([[id, epoch]]);
      } else if (asked > 0 && retryable(code)) later.push([id, asked]);
      else if (asked > 0) this.#kicked(id); // superseded, as a rule
      else if (h.epoch > 0) this.held.set(id, { epoch: h.epoch });
      else this.held.delete(id);
    });
    if (later.length) sleep(1000).then(() => { if (this.link?.open) this.#bindAgain(later); });
  }

  // bind makes this session the holder of ids. If the connection ends meanwhile it rejects, but
  // goes on.
  bind(ids, { policy = 0 } = {}) { return this.#bindAll(ids.map((id) => [id, 0]), policy); }

  // unbind gives ids back, at most max_ids at a time.
  async unbind(ids) {
    while (ids.some((id) => this.held.get(id)?.asked !== undefined)) await sleep(10); // its epoch is not known yet
    const forget = () => ids.forEach((id) => this.held.delete(id));
    const results = await this.#request(K.unbind, forget, ids.map((id) => [id, this.held.get(id)?.epoch ?? 0]));
    return results.map(([code, epoch]) => ({ word: word(code), epoch }));
  }

  async lookup(ids) {
    return (await this.#request(K.lookup, () => {}, ids)).map(([code, epoch]) => ({ word: word(code), epoch }));
  }

  // send resolves with { word, delivered, reason, reply }; without ack with the word 'sent', once
  // it is written.
  send(to, from, payload, { ttl = 5000, ack = true, report = false } = {}) {
    return new Promise((resolve) => {
      const s = { to, from, payload: bytes(payload), ack, report, deadline: Date.now() + ttl, ttl };
      s.end = (code, reason = '', reply = NONE) => {
        clearTimeout(s.timer);
        s.link?.pending.delete(s.seq);
        resolve({ word: word(code), delivered: delivered(code), reason, reply });
      };
      s.sent = () => resolve({ word: 'sent', delivered: 'unknown', reason: '', reply: NONE });
      this.queue.push(s);
      if (ack) s.timer = setTimeout(() => this.#expire(s), ttl + 1000); // the node answers by ttl + 50 ms
      this.flush();
    });
  }

  #expire(s) {
    this.queue = this.queue.filter((q) => q !== s);
    s.end(s.link ? 80 : 33, s.link ? 'no answer from the node' : 'never written');
  }

  // flush writes what may be written now, in order.
  flush() {
    const link = this.link;
    while (link?.open && this.queue.length) {
      const s = this.queue[0], seq = this.seq + 1;
      const { limits } = link;
      const ttl = s.ttl === 0 ? 0 : Math.max(1, s.deadline - Date.now());
      const out = frame(K.send, seq, s.to, s.from, ttl, (s.ack ? ACK : 0) | (s.report ? REPORT : 0), s.payload);
      const tooLarge = s.payload.length > limits.max_payload || (!s.ack && out.length > limits.credit);
      if (!tooLarge && (s.ack ? link.pending.size >= limits.max_in_flight : link.used + out.length > link.total)) return;
      this.queue.shift();
      if (tooLarge) { s.end(65); continue; }
      this.seq = s.seq = seq;
      s.link = link;
      if (s.ack) link.pending.set(seq, s);
      else { link.used += out.length; s.sent(); }
      link.socket.write(out);
    }
  }

  // abandon ends the client at once, without a word to the node.
  abandon() { this.leaving = true; this.link?.socket.destroy(); }

  // bye ends the session once open sends have ended and what was delivered has its answer.
  async bye() {
    this.leaving = true;
    const { link } = this;
    while (link?.open && link.pending.size + link.delivering > 0) await sleep(10);
    if (!link?.open) return;
    link.write(K.bye);
    await Promise.race([new Promise((done) => link.once('closed', done)), sleep(1000)]);
    link.socket.destroy();
  }
}

async function main() {
  const { values } = parseArgs({ options: {
    node: { type: 'string', default: '127.0.0.1:7400' }, id: { type: 'string' }, echo: { type: 'boolean' },
    send: { type: 'string', multiple: true, default: [] },
  } });
  if (!values.id) throw new Error('usage: node client.js [--node host:port,…] --id ID [--echo] [--send TO:TEXT …]');
  const text = (b) => new TextDecoder().decode(b);
  const client = new Client({ nodes: values.node.split(','), onDeliver: ({ from, payload }) => {
    console.log(`${from}: ${text(payload)}`);
    return values.echo ? { reply: payload } : {};
  } });
  client.on('kick', (id) => console.log(`${id} was bound elsewhere`));
  client.on('error_frame', (e) => console.log(`error: ${e.fault}: ${e.message}`));
  client.on('gone', (fault) => process.exit(fault ? 1 : 0));
  await client.connect();
  const [bound] = await client.bind([values.id]);
  if (bound.word !== 'ok') throw new Error(`bind ${values.id}: ${bound.word}`);
  const say = async (to, message) => {
    const o = await client.send(to, values.id, message);
    console.log(`-> ${to}: ${o.word}${o.reason && ` (${o.reason})`}${o.reply.length ? `, reply: ${text(o.reply)}` : ''}`);
  };
  for (const s of values.send) await say(s.slice(0, s.indexOf(':')), s.slice(s.indexOf(':') + 1));
  if (values.send.length && !values.echo) return client.bye();
  console.log(`${values.id} is bound${values.echo ? '' : '; type: TO TEXT'}`);
  if (values.echo) return undefined;
  for await (const line of readline.createInterface({ input: process.stdin })) await say(...line.split(/ (.*)/s));
  return client.bye();
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  main().catch((err) => { console.error(err.message); process.exit(1); });
}
