// Checks ../vectors.json, and the examples of ../../protocol.md, with a msgpack implementation that has nothing to do
// with the Go code. What it knows of the protocol it reads from the tables of the document, or is written below.
// Exits with 1 if anything does not agree.
import { readFileSync } from 'node:fs';
import { decode } from '@msgpack/msgpack';

const read = (path) => readFileSync(new URL(path, import.meta.url), 'utf8');
const vectors = JSON.parse(read('../vectors.json'));
const document = read('../../protocol.md');
const fromHex = (hex) => new Uint8Array(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const toHex = (bytes) => Buffer.from(bytes).toString('hex');

class Refused extends Error {
  constructor(fault) { super(fault); this.fault = fault; }
}
const refuse = (fault) => { throw new Refused(fault); };

// kinds: number -> { name, who, fields: [[name, type], …] }, from the document.
const kinds = new Map();
for (const [, kind, name, who] of document.matchAll(/^\| (\d+) \| (\w+) \| (C→N|N→C|both) \|/gm)) {
  const section = document.split(`\n### ${name} (${kind})\n`)[1].split('\n### ')[0];
  const fields = [...section.matchAll(/^\| \d+ \| (\w+) \| (int|str|bin|list) \|/gm)].map(([, field, type]) => [field, type]);
  kinds.set(Number(kind), { name, who, fields });
}

// Limits in words of the document: [least, most] of an int, or of the length of a str or bin.
const EPOCH = 2n ** 53n - 1n;
const limits = {
  'hello.session': [16, 16], 'hello.secret': [32, 32], 'hello.flags': [0, 255], 'hello.agent': [0, 255],
  'welcome.node': [0, 255], 'welcome.session': [16, 16], 'welcome.secret': [32, 32], 'welcome.flags': [0, 255],
  'error.fault': [0, 127], 'error.flags': [0, 255], 'error.kind': [0, 127], 'error.message': [0, 255],
  'bind.policy': [0, 1], 'kick.id': [1, 255], 'kick.epoch': [0, EPOCH],
  'send.to': [1, 255], 'send.from': [0, 255], 'send.ttl': [0, 2 ** 32 - 1], 'send.flags': [0, 255],
  'deliver.token': [0, 48], 'deliver.to': [1, 255], 'deliver.from': [0, 255], 'deliver.ttl': [0, 2 ** 32 - 1],
  'deliver.flags': [0, 255], 'deliver.epoch': [0, EPOCH],
  'ack.token': [0, 48], 'ack.reason': [0, 255], 'outcome.code': [0, 127], 'outcome.reason': [0, 255],
};
const many = { from: [0, 255], ttl: limits['deliver.ttl'], flags: [0, 255] };
for (const kind of ['multicast', 'deliver_many', 'not_here_many']) {
  for (const [field, range] of Object.entries(many)) limits[`${kind}.${field}`] = range;
}
for (const field of ['token', 'to', 'from', 'ttl', 'flags', 'epoch']) limits[`not_here.${field}`] = limits[`deliver.${field}`];
const maybeEmpty = new Set(['hello.session', 'hello.secret']);

// Lists: the elements, each [type, least, most]; a tuple is an array of them.
const ID = ['str', 1, 255];
const anyStr = ['str', 0, Infinity];
const epoch = ['int', 0, EPOCH];
const result = [['int', 0, 127], epoch];
const member = [['str', 0, 255], ['str', 0, 255]];
const recipient = [['bin', 0, 48], ID, epoch];
const elements = {
  'welcome.limits': ['int', 0, Infinity], 'welcome.members': member, 'members.members': member, 'drain.addrs': ['str', 0, 255],
  'bind.ids': [anyStr, epoch], 'unbind.ids': [anyStr, epoch], 'bound.results': result, 'unbound.results': result, 'found.results': result,
  'lookup.ids': anyStr, 'watch.ids': anyStr, 'unwatch.ids': anyStr, 'watched.results': result, 'changed.changes': [ID, ...result],
  'multicast.to': ID, 'deliver_many.to': recipient, 'not_here_many.to': recipient,
  'outcomes.outcomes': [['int', 0, Infinity], ['int', 0, 127], ['str', 0, 255], ['bin', 0, Infinity]],
};
const mostElements = (kind, name) => {
  if (['bind', 'unbind', 'lookup', 'watch', 'unwatch'].includes(kind)) return vectors.max_ids;
  if (kind === 'multicast') return vectors.max_multicast;
  return name.endsWith('.members') || name === 'drain.addrs' ? 1024 : Infinity;
};

const isInt = (v) => typeof v === 'bigint' || (typeof v === 'number' && Number.isInteger(v));
const typed = (type, v) => {
  const ok = { int: isInt(v), str: typeof v === 'string', bin: v instanceof Uint8Array, list: Array.isArray(v) }[type];
  if (!ok) refuse('wrong_type');
  if (type === 'int' && v < 0) refuse('bad_value');
};
const depth = (v) => {
  if (v instanceof Uint8Array || v === null || typeof v !== 'object') return 0;
  return 1 + Math.max(0, ...Object.values(v).map(depth));
};

// peek returns the kind of a body without looking at what is behind it, or undefined if it has
// none.
function peek(body) {
  const head = (body[0] & 0xf0) === 0x90 ? 1 : { 0xdc: 3, 0xdd: 5 }[body[0]];
  if (head === undefined) refuse('wrong_type');
  const count = head === 1 ? body[0] & 0x0f : body.subarray(1, head).reduce((n, b) => n * 256 + b, 0);
  if (head > body.length || count === 0) refuse('bad_length');
  const width = { 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd3: 8 }[body[head]] ?? 0;
  if (head + 1 + width > body.length) return undefined;
  try {
    return decode(body.subarray(head, head + 1 + width));
  } catch {
    return undefined;
  }
}

// unexpected says whether reader must not be sent a kind on an open connection.
const unexpected = (name, who, reader) =>
  name === 'hello' || name === 'welcome' || who === { N: 'N→C', C: 'C→N' }[reader];

// parse returns the frame's kind and values, null if the frame is not complete, or throws Refused.
// With a reader, it is that of an open connection.
function parse(bytes, reader) {
  if (bytes.length < 4) return null;
  const size = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  if (size === 0) refuse('zero_length');
  if (size > vectors.max_frame) refuse('frame_too_large');
  if (bytes.length < 4 + size) return null;
  const body = bytes.subarray(4, 4 + size);
  const first = peek(body);
  if (typeof first === 'number' && first >= 0 && first < 128) { // the rest is not looked at
    const { name, who } = kinds.get(first) ?? refuse('unknown_kind');
    if (reader && unexpected(name, who, reader)) refuse('unexpected_kind');
  }
  let values;
  try {
    values = decode(body, { useBigInt64: true, maxArrayLength: body.length, maxMapLength: body.length });
  } catch (err) {
    if (/Max length exceeded/.test(err.message)) refuse('too_many');
    if (/Unrecognized type byte/.test(err.message)) refuse('wrong_type');
    if (err instanceof RangeError) refuse('bad_length'); // too short, or bytes left over
    throw err;
  }
  if (values.length === 0) refuse('bad_length');
  typed('int', values[0]);
  if (values[0] > 127) refuse('bad_value');
  const kind = Number(values[0]);
  const known = kinds.get(kind);
  if (values.length < 1 + known.fields.length) refuse('bad_length');
  known.fields.forEach(([field, type], i) => check(known.name, field, type, values[i + 1]));
  if (depth(values) > 16) refuse('too_deep');
  return { kind, known, values: values.slice(1, 1 + known.fields.length) };
}

function check(kind, field, type, v) {
  typed(type, v);
  const name = `${kind}.${field}`;
  if (name === 'ack.code' && v !== 1 && v !== 16) refuse('bad_value');
  if (type === 'list') return list(kind, name, v);
  if (maybeEmpty.has(name) && v.length === 0) return undefined;
  return within(type, v, limits[name] ?? [0, Infinity]);
}

function within(type, v, [least, most]) {
  const n = type === 'int' ? v : Buffer.byteLength(v);
  if (n < least || n > most) refuse('bad_value');
}

function list(kind, name, v) {
  if (v.length > mostElements(kind, name)) refuse('too_many');
  if (name === 'welcome.limits' && v.length < 10) refuse('bad_length');
  const element = elements[name];
  const one = ([type, ...range], e) => { typed(type, e); within(type, e, range); };
  for (const e of v) {
    if (typeof element[0] === 'string') { one(element, e); continue; }
    typed('list', e);
    if (e.length < element.length) refuse('bad_length');
    element.forEach((part, i) => one(part, e[i]));
  }
  if (name === 'welcome.limits') while (v.length < 12) v.push(0); // not announced by an older node
}

// plain brings a decoded value to the form it has in vectors.json; extensions inside lists fall away.
function plain(v, want) {
  if (v instanceof Uint8Array) return toHex(v);
  if (Array.isArray(v)) return v.slice(0, want.length).map((e, i) => plain(e, want[i]));
  if (typeof v === 'bigint') return v <= EPOCH ? Number(v) : String(v);
  return v;
}

function judgeGood(v) {
  const frame = parse(fromHex(v.hex));
  if (!frame) throw new Error('incomplete');
  const got = [frame.kind, frame.known.name, { 'C→N': 'C', 'N→C': 'N', both: 'both' }[frame.known.who],
    frame.known.fields.map(([field, type], i) => [field, type, plain(frame.values[i], v.fields[i][2])])];
  const want = [v.kind, v.kind_name, v.from, v.fields];
  if (JSON.stringify(got) !== JSON.stringify(want)) throw new Error(`got ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
}

// faultOf is what a reader makes of bytes on an open connection; '' if nothing is wrong.
function faultOf(bytes, reader) {
  try {
    parse(bytes, reader);
    return '';
  } catch (err) {
    if (err instanceof Refused) return err.fault;
    throw err;
  }
}

let wrong = 0;
let checks = 0;
const attempt = (name, f) => {
  checks++;
  try { f(); } catch (err) { wrong++; console.error(`${name}: ${err.message}`); }
};
const same = (got, want) => { if (got !== want) throw new Error(`got ${got}, want ${want}`); };
const mustFail = (f) => {
  try { f(); } catch { return; }
  throw new Error('this check finds nothing');
};

for (const v of vectors.good) attempt(v.name, () => judgeGood(v));
for (const v of vectors.bad) {
  if (v.name === 'seq is a float') continue; // a JavaScript decoder makes the same of 1 and 1.0
  for (const reader of v.reader === 'both' ? ['N', 'C'] : [v.reader]) {
    attempt(`${v.name}, read by ${reader}`, () => { same(faultOf(fromHex(v.hex), reader), v.fault); same(v.closed, v.fault !== 'unknown_kind'); });
  }
}
for (const v of vectors.incomplete) attempt(v.name, () => same(parse(fromHex(v.hex)), null));

const examples = [...document.matchAll(/```hex (\w+)\n(.*?)```/gs)];
attempt('one example for each kind', () => same(examples.length, kinds.size));
for (const [, kind, block] of examples) {
  const hex = block.split('\n').map((line) => line.split('  ')[0]).join('').replaceAll(' ', '');
  attempt(`the document's example of ${kind}`, () => same(hex, vectors.good.find((v) => v.name === `example ${kind}`).hex));
}

// The checks themselves: each vector with something changed must be refused.
for (const v of vectors.good) {
  attempt(`${v.name}, cut short`, () => {
    const bytes = fromHex(v.hex).slice(0, -1);
    new DataView(bytes.buffer).setUint32(0, bytes.length - 4);
    mustFail(() => judgeGood({ ...v, hex: toHex(bytes) }));
  });
  attempt(`${v.name}, with another value`, () => mustFail(() => judgeGood({ ...v, fields: [...v.fields.slice(1), ['x', 'int', 1]] })));
}

console.log(`${checks} checks, ${wrong} wrong`);
process.exit(wrong ? 1 : 0);
