import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Route, type RouteName, routes } from "@holdfast/shared/contracts/api";
import { expect, test } from "vitest";
import type { MoverProcess } from "../mover-process.ts";
import { createProfiles } from "../profiles.ts";
import { createTemporaryFolder, type Exchange, runCli, startScriptedApi } from "../testing.ts";

const disk = {
  key: "vda",
  sizeBytes: 10 * 1024 ** 3,
  bus: "virtio",
  format: "qcow2",
  storage: "file",
  location: "/var/lib/libvirt/images/web1.qcow2",
  readOnly: false,
  shareable: false,
};
const vm = {
  vmId: "vm-1",
  providerId: "kvm1",
  externalId: "uuid-1",
  name: "web1",
  description: {
    name: "web1",
    uuid: "uuid-1",
    memoryBytes: 1024 ** 3,
    vcpus: 2,
    architecture: "x86_64",
    firmware: "bios",
    disks: [disk, { ...disk, key: "vdb" }],
    nics: [],
    tags: [],
  },
  power: "running",
  strategy: "checkpoint",
  strategyReason: "all disks are qcow2",
  gone: false,
  seenAt: "2026-11-20T11:00:00Z",
  lastPoint: { pointId: "point-1", repositoryId: "default", takenAt: "2026-11-20T11:59:00Z" },
};
const never = { ...vm, vmId: "vm-2", name: "db\u001b[31m1", lastPoint: undefined };
const point = {
  pointId: "point-1",
  vmId: "vm-1",
  vmName: "web1",
  providerId: "kvm1",
  repositoryId: "default",
  rootKey: "points/vm-1/root",
  jobId: "job-1",
  takenAt: "2026-11-20T11:59:00Z",
  committedAt: "2026-11-20T12:00:00Z",
  mode: "full",
  consistency: "crash",
  warnings: ["quiesce fell back"],
  disks: [
    {
      key: "vda",
      sizeBytes: 2048,
      mode: "full",
      reason: "",
      bytesRead: 1024,
      bytesNew: 512,
      bytesStored: 256,
    },
  ],
};
const job = {
  jobId: "job-1",
  kind: "restore",
  state: "queued",
  providerId: "kvm1",
  siteId: "local",
  createdAt: "2026-11-20T11:59:30Z",
  warnings: [],
  repositoryId: "default",
  vmName: "web1",
  restore: {
    pointId: "point-1",
    mode: "new",
    keepIdentity: false,
    start: false,
    storage: "original",
    format: "original",
    excludedDisks: "empty",
  },
};
const repository = {
  repositoryId: "default",
  url: "/srv/backup",
  createdAt: "2026-11-20T10:00:00Z",
};
const status = {
  service: "holdfast",
  apiVersion: 1,
  time: "2026-11-20T12:00:00Z",
  providers: 1,
  repositories: 1,
  policies: 0,
  vms: 2,
  movers: [],
};

const answers: Readonly<Record<string, unknown>> = {
  "GET /v1/status": status,
  "GET /v1/vms": { items: [vm, never] },
  "GET /v1/vms/web1": { ...vm, points: 1, policyIds: ["nightly"] },
  "GET /v1/jobs": { items: [job] },
  "GET /v1/points": { items: [point] },
  "GET /v1/points/point-1": point,
  "GET /v1/repositories": { items: [repository] },
  "GET /v1/providers": { items: [] },
  "POST /v1/restores": job,
};

function startApi() {
  return startScriptedApi(({ method, path }: Exchange) => {
    const body = answers[`${method} ${path.split("?")[0]}`];
    if (body === undefined) throw new Error(`no answer to ${method} ${path}`);
    return { status: method === "POST" ? 202 : 200, body };
  });
}

test("vm list: a table for people, tab-separated in a pipe, and no name steers the terminal", async () => {
  await using api = await startApi();
  const people = await runCli(["vm", "list"], { endpoint: api.endpoint, isTerminal: true });
  expect(people.stdout.split("\n")[0]).toMatch(/^NAME +PROVIDER +POWER +DISKS +SIZE/);
  const pipe = await runCli(["vm", "list"], { endpoint: api.endpoint });
  expect(pipe.stdout.split("\n")[0]?.split("\t")).toEqual([
    "web1",
    "kvm1",
    "running",
    "2",
    "20.0 GiB",
    "checkpoint",
    "1 m ago",
    "",
    "vm-1",
  ]);
  expect(people.stdout + pipe.stdout).not.toContain("\u001b");
});

/** What a command prints under --json is what the API's schema says, or the schema named here. */
const documents: readonly (readonly [words: string, route: RouteName])[] = [
  ["vm list", "listVms"],
  ["vm show web1", "getVm"],
  ["jobs", "listJobs"],
  ["points web1", "listPoints"],
  ["repository list", "listRepositories"],
  ["provider list", "listProviders"],
];
test.each(documents)("%s --json is one document of the schema of %s", async (words, name) => {
  const route: Route = routes[name];
  await using api = await startApi();
  const run = await runCli([...words.split(" "), "--json"], { endpoint: api.endpoint });
  expect(run).toMatchObject({ code: 0, stderr: "" });
  expect(run.stdout.trimEnd()).not.toContain("\n");
  expect(route.response?.safeParse(JSON.parse(run.stdout)).success).toBe(true);
});

test("an empty list says what comes next, to people only", async () => {
  await using api = await startApi();
  const people = await runCli(["provider", "list"], { endpoint: api.endpoint, isTerminal: true });
  expect(people.stdout).toContain("holdfast provider add libvirt");
  expect((await runCli(["provider", "list"], { endpoint: api.endpoint })).stdout).toBe("");
});

test("status says first how many machines have a point, and names those without", async () => {
  await using api = await startApi();
  const people = await runCli(["status"], { endpoint: api.endpoint, isTerminal: true });
  expect(people.stdout).toMatch(/^1 of 2 machine\(s\) have a recovery point\./);
  const json = await runCli(["status", "--json"], { endpoint: api.endpoint });
  expect(JSON.parse(json.stdout)).toMatchObject({
    protected: 1,
    unprotected: [never.name],
    running: ["job-1"],
  });
});

test("restore sends what was asked for, and the safe defaults", async () => {
  await using api = await startApi();
  const words = [
    "restore",
    "point-1",
    "--no-wait",
    "--name",
    "web1-check",
    "--start",
    "--storage",
    "rbd",
    "--location",
    "rbd",
  ];
  expect((await runCli(words, { endpoint: api.endpoint })).stdout).toBe("job-1\n");
  await runCli(["restore", "point-1", "--no-wait"], { endpoint: api.endpoint });
  expect(api.exchanges.map(({ body }) => body)).toEqual([
    { ...job.restore, name: "web1-check", start: true, storage: "rbd", location: "rbd" },
    job.restore,
  ]);
});

test("export reads the repository itself, with the profile's passphrase", async () => {
  await using folder = await createTemporaryFolder();
  await using api = await startApi();
  const environment = { XDG_CONFIG_HOME: folder.path };
  const passphraseFile = join(folder.path, "passphrase");
  writeFileSync(passphraseFile, "from the profile\n");
  await createProfiles(environment).put("local", {
    endpoint: api.endpoint,
    tokenFile: "/t",
    passphraseFile,
  });
  const requests: unknown[] = [];
  const mover: MoverProcess = {
    run: async (request) => {
      requests.push(request);
      const summary = {
        sizeBytes: 2048,
        bytesScanned: 2048,
        bytesRead: 0,
        bytesNew: 0,
        bytesStored: 0,
        seconds: 1,
      };
      return {
        pointId: "point-1",
        disk: "vda",
        output: "/x/web1.qcow2",
        lost: [],
        summary,
      } as never;
    },
  };
  const run = await runCli(["export", "point-1", "--disk", "0", "-o", "/x/web1.qcow2"], {
    endpoint: api.endpoint,
    environment,
    mover,
  });
  expect(run.code).toBe(0);
  expect(requests).toEqual([
    {
      kind: "image-restore",
      url: "/srv/backup",
      passphrase: "from the profile",
      pointId: "point-1",
      rootKey: "points/vm-1/root",
      disk: "0",
      output: "/x/web1.qcow2",
      format: "qcow2",
      overwrite: false,
    },
  ]);
  expect(run.stdout + run.stderr).not.toContain("from the profile");
});

test.each([
  ["a retention that is no number", ["--keep-daily", "many"]],
  ["a command that is no argument vector", ["--pre-command", "host:rm -rf /"]],
  ["a command at no known place", ["--pre-command", 'cloud:["sync"]']],
  ["no selection", []],
])("policy create with %s is refused before anything is sent", async (_, words) => {
  await using api = await startApi();
  const match = words.length === 0 ? [] : ["--match-name", "*"];
  const run = await runCli(["policy", "create", "p", ...match, ...words], {
    endpoint: api.endpoint,
  });
  expect(run.code).toBe(2);
  expect(api.exchanges.every(({ method }) => method === "GET")).toBe(true);
});
