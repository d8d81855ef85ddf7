// graphile-worker, as its page on performance sets it up: a local queue, completions in batches.
// Commands and answers: see protocol.py.

import { readFileSync, unlinkSync } from "node:fs";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [command, dsn, json] = process.argv.slice(2);
const settings = JSON.parse(json);
const require = createRequire(join(process.env.PGLAPSE_BENCH_ENVIRONMENT, "package.json"));
const { run, runMigrations, runOnce } = await import(pathToFileURL(require.resolve("graphile-worker")));
const pg = require("pg");

const say = (answer) => process.stdout.write(JSON.stringify(answer) + "\n");
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const line = () =>
  new Promise((resolve) => {
    const input = createInterface({ input: process.stdin });
    input.once("line", () => resolve(true));
    input.once("close", () => resolve(false));
  });
const quiet = await (async () => {
  const { Logger } = require("@graphile/logger");
  return new Logger(() => (level, message) => {
    if (level === "error") process.stderr.write(message + "\n");
  });
})();

let done = 0;
const taskList = {
  job: ({ path }) => {
    if (path) unlinkSync(path);
    done += 1;
  },
};

const options = (pool) => ({
  preset: {
    worker: {
      pgPool: pool,
      connectionString: dsn,
      concurrentJobs: settings.concurrency,
      maxPoolSize: settings.pool,
      localQueue: { size: settings.localQueue },
      completeJobBatchDelay: settings.completeJobBatchDelay,
      failJobBatchDelay: settings.completeJobBatchDelay,
      logger: quiet,
    },
  },
  noHandleSignals: true,
});

const ADD = `select count(*) from graphile_worker.add_jobs(array(
  select row('job', json_build_object('path', path), null, case when $2 then now() + interval '1 year' end,
             null, null, null, null)::graphile_worker.job_spec
    from unnest($1::text[]) as path))`;

async function connected(work) {
  const client = new pg.Client({ connectionString: dsn });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

const commands = {
  async install() {
    await runMigrations({ connectionString: dsn, logger: quiet });
  },
  async fill() {
    const paths = settings.paths
      ? readFileSync(settings.paths, "utf8").split("\n").filter(Boolean)
      : new Array(settings.jobs).fill("");
    await connected(async (client) => {
      for (let start = 0; start < paths.length; start += 20000) {
        await client.query(ADD, [paths.slice(start, start + 20000), settings.later]);
      }
    });
  },
  async drain() {
    const pool = new pg.Pool({ connectionString: dsn, max: settings.pool });
    await pool.query("select 1");
    pool.on("error", () => {});
    say({ ready: true });
    if (!(await line())) return;
    const began = performance.now();
    const before = process.cpuUsage();
    const total = settings.jobs;
    // A run that is stopped hands back what its local queue holds, so that it counts no job twice.
    const runner = await run({ ...options(pool), taskList });
    while (done < total && performance.now() - began < settings.seconds * 1000) await sleep(0.002);
    await runner.stop();
    const cpu = process.cpuUsage(before);
    say({ jobs: done, seconds: (performance.now() - began) / 1000, cpu: (cpu.user + cpu.system) / 1e6 });
    await pool.end();
  },
  async serve() {
    const pool = new pg.Pool({ connectionString: dsn, max: settings.pool });
    pool.on("error", () => {});
    const runner = await run({ ...options(pool), taskList });
    say({ ready: true });
    await line();
    await runner.stop();
    await pool.end();
  },
  async probe() {
    mkdirSync(settings.folder, { recursive: true });
    const seconds = [];
    await connected(async (client) => {
      for (let number = 0; number < settings.count; number += 1) {
        const path = join(settings.folder, `probe-${process.pid}-${number}`);
        writeFileSync(path, Buffer.alloc(4096));
        await sleep(settings.pause);
        await client.query(ADD, [[path], false]);
        const began = performance.now();
        while (statSync(path, { throwIfNoEntry: false })) {
          if (performance.now() - began > 20000) throw new Error(`${path} is still there`);
          // A timer of Node.js has no finer grain than a millisecond; this wait has.
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 0.2);
        }
        seconds.push((performance.now() - began) / 1000);
      }
    });
    say({ seconds });
  },
};

await commands[command]();
process.exit(0);
