// The program that the conformance server (../../conformance.md) runs, around client.js:
//
//   go run ./cmd/conformance --exec 'node docs/protocol/example-client/conform.js'
//
// Without the variable CONFORMANCE_NODE it reads addresses from standard input. It runs a client
// for each of them until the address comes again.
import readline from 'node:readline';
import { Client } from './client.js';

const REJECT = 'reject ';
const text = (b) => new TextDecoder().decode(b);
const numbered = (k, size) => String(k).padEnd(size, '.');

function run(node, gone) {
  const client = new Client({ nodes: [node], onDeliver: ({ to, payload }) => {
    const said = text(payload);
    if (said.startsWith(REJECT)) return { reject: said.slice(REJECT.length) };
    if (to === 'driver') setImmediate(() => instructed(...said.split(' ')));
    return { reply: payload };
  } });
  const report = (...words) => client.send('report', 'driver', words.join(' '));
  const send = async (k, to, payload) => {
    const o = await client.send(to, 'alice', payload);
    return report('outcome', to, k, o.word, o.delivered);
  };

  async function instructed(verb, ...args) {
    const [to, n, size] = args;
    switch (verb) {
      case 'send':
        for (let k = 1; k <= n; k++) send(k, to, numbered(k, size));
        break;
      case 'post':
        for (let k = 1; k <= n; k++) client.send(to, 'alice', numbered(k, size), { ack: false, ttl: 0 });
        break;
      case 'bind': case 'bind_new': {
        const bound = client.bind([to], { policy: verb === 'bind' ? 0 : 1 });
        report('bound', to, await bound.then(([r]) => r.word, () => 'lost'));
        break;
      }
      case 'unbind':
        report('unbound', to, (await client.unbind([to]))[0].word);
        break;
      case 'bye':
        client.bye();
        break;
      default:
        report('cannot', verb);
    }
  }

  client.on('kick', (id) => report('kicked', id));
  client.on('gone', gone);
  client.connect().then(() => client.bind(['driver', 'alice', 'bob'])).catch(() => {}); // it goes on after a reconnect
  return client;
}

if (process.env.CONFORMANCE_NODE) {
  run(process.env.CONFORMANCE_NODE, (fault) => { if (fault) console.log(`gave up: ${fault}`); process.exit(fault ? 1 : 0); });
} else {
  const clients = new Map();
  for await (const node of readline.createInterface({ input: process.stdin })) {
    if (clients.has(node)) clients.get(node).abandon();
    if (!clients.delete(node)) clients.set(node, run(node, () => {}));
  }
}
