// Talks to a real node and checks every answer: node test.js --node 127.0.0.1:7400. Exits with 1 on any mismatch.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { parseArgs } from 'node:util';
import { decode } from '@msgpack/msgpack';
import { Client } from './client.js';
import { bytes, faultName, frame, K, Link, NONE, word } from './link.js';

const { values: { node } } = parseArgs({ options: { node: { type: 'string', default: '127.0.0.1:7400' } } });
const run = Math.random().toString(36).slice(2, 8); // IDs of our own, so that runs do not kick each other
const [alice, bob, carol, nobody] = ['alice', 'bob', 'carol', 'nobody'].map((name) => `${name}-${run}`);
const text = (b) => new TextDecoder().decode(b);
const next = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));
const gone = setTimeout(() => { console.error('nothing happened for too long'); process.exit(1); }, 60_000);

// Raw speaks frames by hand, for what the client never does.
class Raw {
  frames = [];
  static async open(session = NONE, secret = NONE, flags = 0) {
    const raw = new Raw(frame(K.hello, 1, 1, 0, NONE, session, secret, flags, 'test'));
    raw.welcome = await Promise.race([next(raw.link, 'welcome'), next(raw.link, 'closed')]);
    return raw;
  }
  constructor(first) {
    this.link = new Link(node, first);
    this.closed = next(this.link, 'closed');
    this.link.on('frame', (f) => { if (f[0] !== K.pong || f[1] !== 0) { this.frames.push(f); this.wake?.(); } }); // 0: a heartbeat's
  }
  write(...fields) { this.link.socket.write(frame(...fields)); return this; }
  // expect takes the next frame, which must be of this kind.
  async expect(kind) {
    while (!this.frames.length) await new Promise((resolve) => { this.wake = resolve; });
    const f = this.frames.shift();
    assert.equal(f[0], kind, `got ${JSON.stringify(f)}`);
    return f;
  }
  async expectFault(fault, closes) {
    const f = await this.expect(K.error);
    assert.equal(faultName(f[1]), fault);
    assert.equal(f[2] & 1, closes ? 1 : 0, `${fault}: flags`);
    if (closes) assert.equal(await this.closed, fault);
  }
  async bind(id, epoch = 0, policy = 0) { return (await this.write(K.bind, 1, policy, [[id, epoch]]).expect(K.bound))[2][0]; }
  end() { this.link.socket.destroy(); return this.closed; }
}

// Script is a node that does what a test says. Its connections come after hello and welcome were
// exchanged.
class Script {
  waiting = [];
  static async listen() {
    const script = new Script();
    script.server = net.createServer((socket) => script.#serve(socket));
    await new Promise((resolve) => script.server.listen(0, '127.0.0.1', resolve));
    script.address = `127.0.0.1:${script.server.address().port}`;
    return script;
  }
  #serve(socket) {
    const c = { frames: [], socket, say: (...fields) => socket.write(frame(...fields)), closed: next(socket, 'close') };
    c.expect = async (kind) => {
      while (!c.frames.length) await new Promise((resolve) => { c.wake = resolve; });
      const f = c.frames.shift();
      assert.equal(f[0], kind, `got ${JSON.stringify(f)}`);
      return f;
    };
    let rest = Buffer.alloc(0);
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      for (rest = Buffer.concat([rest, chunk]); rest.length >= 4 && rest.length >= 4 + rest.readUInt32BE();) {
        const f = decode(rest.subarray(4, 4 + rest.readUInt32BE()));
        rest = rest.subarray(4 + rest.readUInt32BE());
        if (f[0] === K.hello) {
          c.hello = f;
          const session = f[5].length ? f[5] : new Uint8Array(16).fill(7);
          c.say(K.welcome, 1, f[3] & 2, 'script', 1, session, new Uint8Array(32), f[5].length ? 1 : 0,
            [1000, 5000, 10, 10, 100000, 60000, 5000, 1000, 3000, 10000], [['script', this.address]]);
          this.waiting.shift()?.(c);
        } else if (f[0] === K.ping) c.say(K.pong, f[1]);
        else if (f[0] !== K.pong) { c.frames.push(f); c.wake?.(); }
      }
    });
  }
  accept() { return new Promise((resolve) => { this.waiting.push(resolve); }); }
}

// What bob does with a message is said by the message.
const received = [];
const answer = ({ from, payload }) => {
  received.push(`${from}: ${text(payload)}`);
  switch (text(payload)) {
    case 'ignore': return { ignore: true };
    case 'refuse': return { reject: 'not today' };
    default: return { reply: `got ${text(payload)}` };
  }
};
const a = new Client({ nodes: [node] });
const b = new Client({ nodes: [node], onDeliver: answer });
const say = (to, message, options) => a.send(to, alice, message, options);
const untilGone = async (id) => { // a session ends a moment after its bye
  for (let was; was !== 'no_route'; [was] = await lookup(id)) assert.ok(!was || was === 'ok' || was === 'unreachable', was);
};
const lookup = async (...ids) => (await a.lookup(ids)).map((r) => r.word);

const tests = {
  async 'hello and bind'() {
    const [w] = await Promise.all([a.connect(), b.connect()]);
    assert.equal(w.resumed, false);
    assert.equal(w.session.length, 16);
    const [r] = await a.bind([alice]);
    assert.equal(r.word, 'ok');
    assert.ok(r.epoch > 0 && r.epoch < 2 ** 53);
    assert.deepEqual((await b.bind([bob, '', 'x'.repeat(256)])).map((x) => x.word), ['ok', 'bad_id', 'bad_id']);
  },
  async lookup() {
    assert.deepEqual(await lookup(alice, bob, nobody, ''), ['ok', 'ok', 'no_route', 'bad_id']);
    assert.deepEqual(await a.lookup([]), []);
  },
  async 'acked, with a reply'() {
    const o = await say(bob, 'hello');
    assert.deepEqual([o.word, text(o.reply)], ['acked', 'got hello']);
    assert.equal((await say(alice, 'myself')).word, 'acked');
  },
  async 'many at once, in order'() {
    received.length = 0;
    const all = await Promise.all(Array.from({ length: 1000 }, (_, i) => say(bob, `m${i}`)));
    assert.ok(all.every((o, i) => o.word === 'acked' && text(o.reply) === `got m${i}`));
    assert.deepEqual(received, Array.from({ length: 1000 }, (_, i) => `${alice}: m${i}`));
  },
  async rejected() {
    const o = await say(bob, 'refuse');
    assert.deepEqual([o.word, o.reason], ['rejected', 'not today']);
  },
  async no_route() { assert.equal((await say(nobody, 'hello')).word, 'no_route'); },
  async timeout() {
    const t = Date.now();
    assert.equal((await say(bob, 'ignore', { ttl: 300 })).word, 'timeout');
    assert.ok(Date.now() - t >= 299, 'before its deadline');
  },
  async 'denied: from an ID of somebody else'() { assert.equal((await a.send(bob, bob, 'hello')).word, 'denied'); },
  async 'denied: from nobody'() { assert.equal((await a.send(bob, '', 'hello')).word, 'denied'); },
  async too_large() {
    assert.equal((await say(bob, new Uint8Array(a.link.limits.max_payload + 1))).word, 'too_large'); // says the client
    const raw = await Raw.open();
    await raw.bind(carol);
    raw.write(K.send, 1, bob, carol, 0, 1, new Uint8Array(a.link.limits.max_payload + 1)); // says the node
    assert.equal(word((await raw.expect(K.outcome))[2]), 'too_large');
    await raw.write(K.bye).closed;
  },
  async 'the largest payload'() {
    const o = await say(bob, new Uint8Array(a.link.limits.max_payload - 8).fill(120));
    assert.deepEqual([o.word, o.reply.length], ['acked', a.link.limits.max_payload - 4]);
  },
  async 'without ack; report'() {
    received.length = 0;
    assert.equal((await say(bob, 'quiet', { ack: false })).word, 'sent');
    assert.equal((await say(bob, 'loud')).word, 'acked'); // after it, in order
    assert.deepEqual(received, [`${alice}: quiet`, `${alice}: loud`]);
    const raw = await Raw.open();
    await raw.bind(carol);
    raw.write(K.send, 5, nobody, carol, 0, 0, NONE).write(K.send, 6, nobody, carol, 0, 2, NONE);
    const o = await raw.expect(K.outcome);
    assert.deepEqual([o[1], word(o[2])], [6, 'no_route']);
    await raw.write(K.bye).closed;
  },
  async credit() {
    const raw = await Raw.open();
    const short = `c${run.slice(0, 4)}`; // as long as alice
    await raw.bind(short);
    const out = frame(K.send, 1, 'bob', short, 0, 0, bytes('hello'));
    const { credit } = raw.link.limits;
    const half = Math.floor(credit / 2 / out.length) + 1;
    raw.link.socket.write(Buffer.concat(Array(half).fill(out)));
    const [, total] = await raw.expect(K.credit);
    assert.equal(total, half * out.length + credit);
    if (credit === 4194304) assert.deepEqual([out.length, half, total], [26, 80660, 6291464], 'the example of the document');
    await raw.write(K.bye).closed;
  },
  async 'credit exceeded'() {
    const raw = await Raw.open();
    const { credit, max_frame: maxFrame } = raw.link.limits;
    if (credit + 100 > maxFrame) return raw.end(); // no frame is that long, and the node renews faster than anybody sends
    raw.write(K.send, 1, 'bob', 'x', 0, 0, new Uint8Array(credit)); // with its head it is over
    return raw.expectFault('credit_exceeded', true);
  },
  async 'ping and pong'() {
    const raw = await Raw.open();
    assert.equal((await raw.write(K.ping, 2 ** 40).expect(K.pong))[1], 2 ** 40);
    await raw.end();
  },
  async 'kick and reject-new'() {
    const c = new Client({ nodes: [node], onDeliver: () => ({ reply: 'carol' }) });
    await c.connect();
    assert.equal((await c.bind([bob], { policy: 1 }))[0].word, 'taken');
    const kicked = next(b, 'kick');
    assert.equal((await c.bind([bob]))[0].word, 'ok');
    assert.equal(await kicked, bob);
    assert.equal(text((await say(bob, 'who')).reply), 'carol');
    assert.equal((await b.send(alice, bob, 'from a kicked ID')).word, 'denied');
    c.held.delete(bob); // so that it answers not_here
    assert.equal((await say(bob, 'hello')).word, 'no_route');
    assert.deepEqual(await lookup(bob), ['no_route']);
    assert.equal((await c.bind([bob]))[0].word, 'ok');
    const odd = Buffer.from(`00a1ff${Buffer.from(run).toString('hex')}`, 'hex'); // no UTF-8, so what comes back has another from
    const [fake, oddStr] = [frame(K.bind, 1, 0, [[`\u0000xy${run}`, 0]]), Buffer.concat([Buffer.from([0xa0 | odd.length]), odd])];
    const swap = (b) => { // the encoder cannot write such an ID
      const at = b.indexOf(Buffer.from(`\u0000xy${run}`));
      odd.copy(b, at);
      assert.equal(b[at - 1], oddStr[0]);
      return b;
    };
    const raw = await Raw.open();
    raw.link.socket.write(swap(fake));
    assert.equal((await raw.expect(K.bound))[2][0][0], 0);
    c.held.delete(bob);
    raw.link.socket.write(swap(frame(K.send, 2, bob, `\u0000xy${run}`, 2000, 1, NONE)));
    assert.equal(word((await raw.expect(K.outcome))[2]), 'no_route');
    await raw.write(K.bye).closed;
    await c.bye();
    assert.equal((await b.bind([bob], { policy: 1 }))[0].word, 'ok');
  },
  async unbind() {
    assert.equal((await b.bind([carol]))[0].word, 'ok');
    assert.deepEqual((await b.unbind([carol])).map((r) => r.word), ['ok']);
    assert.deepEqual((await b.unbind([carol])).map((r) => r.word), ['no_route']);
  },
  async 'reconnect with resume'() {
    const { session } = a;
    const back = next(a, 'welcome');
    const open = say(bob, 'ignore');
    a.link.socket.destroy();
    assert.equal((await open).word, 'lost');
    const waiting = say(bob, 'hello'); // waits for the connection
    const w = await back;
    assert.deepEqual([w.resumed, Buffer.from(w.session)], [true, Buffer.from(session)]);
    assert.equal((await waiting).word, 'acked');
  },
  async 'lost: the receiver goes; unreachable: it is away; no_route: it is gone'() {
    const raw = await Raw.open();
    await raw.bind(carol);
    const open = say(carol, 'hello');
    const [, token] = await raw.expect(K.deliver);
    await raw.end();
    assert.equal((await open).word, 'lost');
    assert.equal((await say(carol, 'hello')).word, 'unreachable');
    assert.deepEqual(await lookup(carol), ['unreachable']);
    const again = await Raw.open(raw.welcome[5], raw.welcome[6]);
    assert.equal(again.welcome[7], 1, 'not resumed');
    again.write(K.ack, token, 1, '', NONE); // late: ignored
    const third = say(carol, 'hello');
    again.write(K.ack, (await again.expect(K.deliver))[1], 1, '', bytes('back'));
    assert.equal(text((await third).reply), 'back');
    await again.write(K.bye).closed;
    await untilGone(carol);
  },
  async 'several connections; replace; bye'() {
    const one = await Raw.open();
    const [, session, secret] = [0, one.welcome[5], one.welcome[6]];
    const two = await Raw.open(session, secret);
    await two.write(K.ping, 1).expect(K.pong);
    const three = await Raw.open(session, secret, 1);
    await Promise.all([one.expectFault('replaced', true), two.expectFault('replaced', true)]);
    const four = await Raw.open(session, secret);
    three.write(K.bye);
    await Promise.all([three.closed, four.expectFault('session_ended', true)]);
    const five = await Raw.open(session, secret);
    assert.equal(five.welcome[7] & 1, 0, 'a session that has ended was resumed');
    await five.end();
  },
  async 're-assert'() {
    const one = await Raw.open();
    const [, epoch] = await one.bind(carol);
    await one.write(K.bye).closed;
    await untilGone(carol);
    const two = await Raw.open();
    assert.deepEqual(await two.bind(carol, epoch), [0, epoch]);
    const three = await Raw.open();
    const [code, newer] = await three.bind(carol);
    assert.deepEqual([word(code), newer > epoch], ['ok', true]);
    assert.deepEqual((await two.expect(K.kick)).slice(1), [carol, newer]);
    assert.deepEqual(await two.bind(carol, epoch), [67, newer]);
    await Promise.all([two.write(K.bye).closed, three.write(K.bye).closed]);
  },
  async 'tokens: late ones are ignored, forged ones are not'() {
    const raw = await Raw.open();
    await raw.bind(carol);
    const open = say(carol, 'hello');
    const [, token] = await raw.expect(K.deliver);
    raw.write(K.ack, token, 1, '', NONE).write(K.ack, token, 1, '', NONE);
    assert.equal((await open).word, 'acked');
    for (const forged of [NONE, bytes('nonsense'), new Uint8Array(32)]) {
      raw.write(K.ack, forged, 1, '', NONE);
      await raw.expectFault('bad_token', false);
    }
    assert.equal((await raw.write(K.ping, 3).expect(K.pong))[1], 3);
    await raw.write(K.bye).closed;
  },
  async 'faults'() {
    for (const [fault, out] of [
      ['zero_length', [0, 0, 0, 0]], ['frame_too_large', [0xff, 0xff, 0xff, 0xff]], ['bad_length', [0, 0, 0, 3, 0x92, 3, 0xcd]],
      ['wrong_type', [0, 0, 0, 3, 0x92, 3, 0xc0]], ['too_many', [0, 0, 0, 5, 0xdd, 0, 0x98, 0x96, 0x80]],
      ['bad_value', [0, 0, 0, 3, 0x92, 3, 0xff]], ['unexpected_kind', [0, 0, 0, 3, 0x92, 7, 1]],
    ]) {
      const raw = await Raw.open();
      raw.link.socket.write(Buffer.from(out));
      await raw.expectFault(fault, true);
    }
    const raw = await Raw.open();
    await raw.write(120, 'whatever').expectFault('unknown_kind', false);
    await raw.write(K.hello, 1, 1, 0, NONE, NONE, NONE, 0, '').expectFault('unexpected_kind', true);
    await new Raw(frame(K.ping, 1)).expectFault('unexpected_kind', true);
    await new Raw(frame(K.hello, 1, 1, 0, new Uint8Array(4096), NONE, NONE, 0, '')).expectFault('frame_too_large', true);
    await new Raw(frame(K.hello, 2, 9, 0, NONE, NONE, NONE, 0, '')).expectFault('bad_version', true);
    await new Raw(frame(K.hello, 1, 1, 0, NONE, new Uint8Array(16).fill(1), new Uint8Array(32), 0, '')).expectFault('unauthenticated', true);
  },
  async 'what a node may not say ends the connection, and what is not known is skipped'() {
    const { good, bad } = JSON.parse(readFileSync(new URL('../vectors.json', import.meta.url), 'utf8'));
    const fromHex = (hex) => Buffer.from(hex, 'hex');
    const welcome = fromHex(good.find((v) => v.name === 'example welcome').hex);
    const cases = bad.filter((v) => v.reader !== 'N' && (v.kind === '' || ['unknown_kind', 'unexpected_kind'].includes(v.fault)));
    assert.ok(cases.length > 25, 'too few vectors');
    let out;
    const server = net.createServer((socket) => { socket.on('error', () => {}); socket.write(Buffer.concat([welcome, out, frame(K.credit, 1)])); });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    for (const v of cases) {
      out = fromHex(v.hex);
      const link = new Link(`127.0.0.1:${server.address().port}`, frame(K.hello, 1, 1, 0, NONE, NONE, NONE, 0, 'test'));
      const heard = new Promise((resolve) => link.on('frame', (f) => f[0] === K.credit && resolve(false)));
      assert.equal(await Promise.race([heard, next(link, 'closed').then(() => true)]), v.closed, v.name);
      link.socket.destroy();
    }
    server.close();
  },
  async 'asked for its bindings; a bind that is under way follows'() {
    const script = await Script.listen();
    const c = new Client({ nodes: [script.address] });
    const up = c.connect();
    const n = await script.accept();
    await up;
    assert.equal(n.hello[9], 1000, 'no heartbeats promised');
    const first = c.bind(['x']);
    n.say(K.bound, (await n.expect(K.bind))[1], [[0, 100]]);
    assert.equal((await first)[0].word, 'ok');
    c.bind(['y']);
    const open = await n.expect(K.bind);
    n.say(K.reassert, 0);
    const asserted = await n.expect(K.bind);
    assert.deepEqual(asserted[3], [['x', 100]]);
    n.say(K.bound, open[1], [[0, 200]]);
    const again = await n.expect(K.bind);
    assert.deepEqual(again[3], [['y', 200]]);
    n.say(K.bound, again[1], [[67, 300]]);
    assert.equal(await next(c, 'kick'), 'y');
    const unbound = c.unbind(['x']); // waits for bound
    n.say(K.bound, asserted[1], [[0, 100]]);
    const [, seq, ids] = await n.expect(K.unbind);
    assert.deepEqual(ids, [['x', 100]]);
    n.say(K.unbound, seq, [[0, 0]]);
    await unbound;
    c.leaving = true;
    n.socket.destroy();
    script.server.close();
  },
  async 'a drain: another connection, leave, and the end when all is answered'() {
    const [from, to] = await Promise.all([Script.listen(), Script.listen()]);
    let answer;
    const c = new Client({ nodes: [from.address], onDeliver: () => new Promise((resolve) => { answer = resolve; }) });
    const up = c.connect();
    const one = await from.accept();
    await up;
    const bound = c.bind(['x']);
    one.say(K.bound, (await one.expect(K.bind))[1], [[0, 100]]);
    await bound;
    one.say(K.members, [['a', from.address], ['b', to.address], ['c', '']]);
    one.say(K.drain, 0, 1000, [to.address]);
    const two = await to.accept();
    assert.deepEqual([two.hello[5].length, two.hello[7]], [16, 0], 'not the same session, or the old connection is to be replaced');
    await one.expect(K.leave);
    one.say(K.deliver, bytes('t'), 'x', 'y', 1000, 1, 100, NONE);
    one.say(K.left);
    while (!answer) await new Promise((resolve) => setImmediate(resolve));
    answer({ reply: 'late' });
    assert.deepEqual([...(await one.expect(K.ack))[1]], [...bytes('t')]);
    await one.closed;
    assert.deepEqual(c.nodes, [from.address, to.address]);
    c.leaving = true;
    two.socket.destroy();
    from.server.close();
    to.server.close();
  },
  async 'a frame a byte at a time'() {
    const raw = await Raw.open();
    for (const byte of frame(K.ping, 70000)) {
      raw.link.socket.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal((await raw.expect(K.pong))[1], 70000);
    await raw.end();
  },
  async bye() {
    await Promise.all([a.bye(), b.bye()]);
    const raw = await Raw.open();
    for (let code; code !== 32;) [[code]] = (await raw.write(K.lookup, 1, [bob]).expect(K.found))[2];
    await raw.end();
  },
};

for (const [name, test] of Object.entries(tests)) {
  await test().catch((err) => {
    console.error(`FAILED: ${name}\n${err.stack}`);
    process.exit(1);
  });
  console.log(`ok: ${name}`);
}
clearTimeout(gone);
