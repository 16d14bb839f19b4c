/**
 * A real single-node Ceph cluster on loopback for system tests: one monitor, one OSD on a sparse file, an RBD pool, and
 * radosgw as an S3 endpoint, all as plain daemons. Needs root on Debian 12. Everything lies under one folder; starting
 * a cluster that runs is harmless, and one that was stopped comes back with its data.
 */
import { access, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { installMissing, run, shell, waitUntil } from "./run.ts";

const packages = ["ceph-mon", "ceph-osd", "ceph-common", "radosgw", "qemu-block-extra"];
/** Clients before what they depend on. */
const daemonsInStopOrder = ["rgw", "osd.0", "mon.a"] as const;

export type CephOptions = {
  /** Holds all of the cluster; its path must be short, for the daemons' sockets. */
  readonly folder: string;
  /** Size of the OSD's sparse file, in bytes; default 16 GiB. */
  readonly osdBytes?: number;
  readonly say?: (line: string) => void;
};

export type Ceph = {
  readonly configFile: string;
  readonly keyringFile: string;
  readonly pool: "volumes";
  readonly s3: {
    readonly endpoint: string;
    readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
  };
  rbd(...args: readonly string[]): Promise<string>;
  /** Stops the daemons; `wipe` also removes the folder. */
  stop(options?: { readonly wipe?: boolean }): Promise<void>;
};

const credentials = { accessKeyId: "testbed-access", secretAccessKey: "testbed-secret" } as const;

export async function startCeph(options: CephOptions): Promise<Ceph> {
  const { folder, say = () => undefined } = options;
  await installMissing(packages, say);
  const configFile = join(folder, "ceph.conf");
  const created = join(folder, "created");
  const environment = { CEPH_CONF: configFile };
  const isNew = !(await exists(created));
  if (isNew) {
    await stopDaemons(folder);
    await rm(folder, { recursive: true, force: true });
    say(`creating a Ceph cluster in ${folder}`);
    await writeConfig(folder, options.osdBytes ?? 16 * 1024 ** 3);
    await shell(createMonitor, [folder]);
  }
  await startDaemon("mon.a", ["ceph-mon", "-i", "a"]);
  if (isNew) await shell(createOsd, [folder]);
  await startDaemon("osd.0", ["ceph-osd", "-i", "0"]);
  if (isNew) {
    await shell(createPoolAndUser, [folder, credentials.accessKeyId, credentials.secretAccessKey]);
    await writeFile(created, "");
  }
  await startDaemon("rgw", ["radosgw", "-n", "client.rgw"]);
  const endpoint = /endpoint=(\S+)/.exec(await readFile(configFile, "utf8"))?.[1];
  await waitUntil("radosgw answers", () => answers(`http://${endpoint}`), 60_000);
  return {
    configFile,
    keyringFile: join(folder, "keyring"),
    pool: "volumes",
    s3: { endpoint: `http://${endpoint}`, credentials },
    rbd: (...args) => run("rbd", args, { environment }),
    stop: async ({ wipe = false } = {}) => {
      await stopDaemons(folder);
      if (wipe) await rm(folder, { recursive: true, force: true });
    },
  };

  async function startDaemon(name: string, [command, ...args]: [string, ...string[]]) {
    if ((await aliveProcess(folder, name)) !== undefined) return;
    say(`starting ${name}`);
    await run(command, args, { environment });
  }
}

async function writeConfig(folder: string, osdBytes: number): Promise<void> {
  for (const part of ["mon", "osd", "run", "log", "crash"]) {
    await mkdir(join(folder, part), { recursive: true });
  }
  const [v2, v1, s3] = await freePorts(3);
  const fsid = crypto.randomUUID();
  const text = `[global]
fsid = ${fsid}
mon host = [v2:127.0.0.1:${v2},v1:127.0.0.1:${v1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth allow insecure global id reclaim = false
run dir = ${folder}/run
pid file = ${folder}/run/$type.$id.pid
admin socket = ${folder}/run/$cluster-$name.asok
log file = ${folder}/log/$type.$id.log
crash dir = ${folder}/crash
# One OSD: one copy, few placement groups, no placement across hosts.
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0

[mon]
mon data = ${folder}/mon
mon cluster log file = ${folder}/log/cluster.log
mon allow pool size one = true
mon allow pool delete = true
mon data avail warn = 2
mon data avail crit = 1
# Commit map changes at once: pools are created in seconds instead of tens of them.
paxos propose interval = 0.02
paxos min wait = 0.01

[osd]
osd data = ${folder}/osd
osd objectstore = bluestore
bluestore block size = ${osdBytes}
osd memory target = 1073741824

[client]
keyring = ${folder}/keyring
admin socket =
log file =
pid file =

[client.rgw]
pid file = ${folder}/run/rgw.pid
log file = ${folder}/log/rgw.log
rgw frontends = beast endpoint=127.0.0.1:${s3}
rgw thread pool size = 64
rgw dynamic resharding = false
`;
  await writeFile(join(folder, "ceph.conf"), text);
}

/** All keys go into the monitor's initial database. */
const createMonitor = `
  dir=$1
  export CEPH_CONF=$dir/ceph.conf
  {
    ceph-authtool -C "$dir/keyring" --gen-key -n client.admin \\
      --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' --cap mds 'allow *'
    ceph-authtool "$dir/keyring" --gen-key -n client.rgw --cap mon 'allow rw' --cap osd 'allow rwx' --cap mgr 'allow rw'
    ceph-authtool -C "$dir/osd/keyring" --gen-key -n osd.0 \\
      --cap mon 'allow profile osd' --cap osd 'allow *' --cap mgr 'allow profile osd'
    ceph-authtool -C "$dir/mon.keyring" --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool "$dir/mon.keyring" --import-keyring "$dir/keyring"
    ceph-authtool "$dir/mon.keyring" --import-keyring "$dir/osd/keyring"
    fsid=$(sed -n 's/^fsid = //p' "$CEPH_CONF")
    addresses=$(sed -n 's/^mon host = //p' "$CEPH_CONF")
    monmaptool --create --clobber --fsid "$fsid" --addv a "$addresses" "$dir/monmap"
  } >/dev/null
  ceph-mon --mkfs -i a --monmap "$dir/monmap" --keyring "$dir/mon.keyring"
  # QEMU's user reads the configuration and the key.
  chmod 711 "$dir"; chmod 644 "$CEPH_CONF" "$dir/keyring"
`;

const createOsd = `
  export CEPH_CONF=$1/ceph.conf
  uuid=$(</proc/sys/kernel/random/uuid)
  number=$(timeout 60 ceph osd new "$uuid")
  [[ $number == 0 ]] || { echo "the first OSD has number $number" >&2; exit 1; }
  ceph-osd --mkfs -i 0 --osd-uuid "$uuid"
`;

const createPoolAndUser = `
  export CEPH_CONF=$1/ceph.conf
  timeout 60 ceph osd pool create volumes
  timeout 60 rbd pool init volumes
  timeout 60 radosgw-admin -n client.rgw user create --uid testbed --display-name testbed \\
    --access-key "$2" --secret-key "$3" >/dev/null
`;

async function stopDaemons(folder: string): Promise<void> {
  for (const name of daemonsInStopOrder) {
    const pid = await aliveProcess(folder, name);
    if (pid === undefined) continue;
    process.kill(pid, "SIGTERM");
    const gone = async () => (await aliveProcess(folder, name)) === undefined;
    await waitUntil(`${name} stops`, gone, 30_000).catch(() => process.kill(pid, "SIGKILL"));
  }
}

/** The process of that pid file, if it runs and is of this very cluster. */
async function aliveProcess(folder: string, name: string): Promise<number | undefined> {
  const text = await readFile(join(folder, `run/${name}.pid`), "utf8").catch(() => "");
  const pid = Number.parseInt(text, 10);
  if (!(pid > 1)) return undefined;
  const environ = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "");
  return environ.split("\0").includes(`CEPH_CONF=${join(folder, "ceph.conf")}`) ? pid : undefined;
}

async function freePorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports: number[] = [];
  for (const server of servers) {
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address !== null && typeof address === "object") ports.push(address.port);
  }
  for (const server of servers) await new Promise((resolve) => server.close(resolve));
  return ports;
}

async function answers(url: string): Promise<boolean> {
  try {
    await (await fetch(url)).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
