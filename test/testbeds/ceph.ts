/**
 * A real one-node Ceph cluster on loopback for tests: a monitor, an OSD on a sparse file and a pool for RBD images.
 * Needs root on Debian 12. Everything lies under one folder; starting twice is harmless.
 */
import { access, appendFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { installMissing, run, shell, waitUntil } from "./run.ts";

export type CephOptions = {
  readonly folder: string;
  /** Of the monitor, protocol 2; protocol 1 gets the next one. */
  readonly port: number;
  readonly pool?: string;
  readonly say?: (line: string) => void;
};

export type Ceph = {
  readonly configFile: string;
  readonly pool: string;
  rbd(...args: readonly string[]): Promise<string>;
  stop(): Promise<void>;
};

const osdBytes = 32 * 1024 ** 3;

export async function startCeph(options: CephOptions): Promise<Ceph> {
  const { folder, pool = "volumes", say = () => undefined } = options;
  const packages = ["ceph-mon", "ceph-osd", "ceph-common", "qemu-block-extra"];
  await installMissing(packages, say);
  for (const part of ["mon", "osd", "run", "log", "crash"]) {
    await mkdir(join(folder, part), { recursive: true });
  }
  const configFile = join(folder, "ceph.conf");
  const environment = { CEPH_CONF: configFile };
  const created = join(folder, "created");
  const isNew = !(await isThere(created));
  if (isNew) {
    say(`creating a Ceph cluster in ${folder}`);
    await shell('rm -rf "$1"/mon/* "$1"/osd/*', [folder]);
    await writeFile(configFile, configuration(folder, options.port, await newUuid()));
    await shell(makeKeys, [folder, String(options.port), configFile]);
  }
  await startDaemon(folder, "mon.a", ["ceph-mon", "-i", "a"], environment);
  if (isNew) {
    const uuid = await newUuid();
    await run("ceph", ["osd", "new", uuid], { environment });
    await run("ceph-osd", ["--mkfs", "-i", "0", "--osd-uuid", uuid], { environment });
  }
  await startDaemon(folder, "osd.0", ["ceph-osd", "-i", "0"], environment);
  if (isNew) {
    await run("ceph", ["osd", "pool", "create", pool], { environment });
    await run("rbd", ["pool", "init", pool], { environment });
    await writeFile(created, "");
  }
  await run("timeout", ["60", "rbd", "ls", pool], { environment });
  return {
    configFile,
    pool,
    rbd: (...args) => run("rbd", [...args], { environment }),
    stop: async () => {
      for (const name of ["osd.0", "mon.a"]) await stopDaemon(folder, name);
    },
  };
}

async function newUuid(): Promise<string> {
  return (await readFile("/proc/sys/kernel/random/uuid", "utf8")).trim();
}

function configuration(folder: string, port: number, fsid: string): string {
  return `[global]
fsid = ${fsid}
mon host = [v2:127.0.0.1:${port},v1:127.0.0.1:${port + 1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth allow insecure global id reclaim = false
run dir = ${folder}/run
pid file = ${folder}/run/$type.$id.pid
admin socket = ${folder}/run/$cluster-$name.asok
log file = ${folder}/log/$type.$id.log
crash dir = ${folder}/crash
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
mon warn on pool no redundancy = false
mon data avail warn = 2
mon data avail crit = 1
# Map changes are committed at once: pools are there in seconds.
paxos propose interval = 0.02
paxos min wait = 0.01

[osd]
osd data = ${folder}/osd
osd objectstore = bluestore
bluestore block size = ${osdBytes}
osd memory target = 939524096

[client]
keyring = ${folder}/keyring
admin socket =
log file =
pid file =
`;
}

const makeKeys = `
folder=$1; port=$2; export CEPH_CONF=$3
ceph-authtool -C "$folder/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
ceph-authtool -C "$folder/osd/keyring" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
ceph-authtool -C "$folder/mon.keyring" --gen-key -n mon. --cap mon 'allow *'
for k in keyring osd/keyring; do ceph-authtool "$folder/mon.keyring" --import-keyring "$folder/$k"; done
fsid=$(sed -n 's/^fsid = //p' "$CEPH_CONF")
monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$port,v1:127.0.0.1:$((port + 1))]" "$folder/monmap"
ceph-mon --mkfs -i a --monmap "$folder/monmap" --keyring "$folder/mon.keyring"
# QEMU's user reads the configuration and the key.
chmod 711 "$folder"; chmod 644 "$CEPH_CONF" "$folder/keyring"
`;

async function startDaemon(
  folder: string,
  name: string,
  [program, ...args]: readonly [string, ...string[]],
  environment: Readonly<Record<string, string>>,
): Promise<void> {
  if (await isAlive(folder, name)) return;
  await appendFile(join(folder, "log/start.log"), `${name}\n`);
  await run(program, args, { environment });
  await waitUntil(`${name} runs`, () => isAlive(folder, name), 30_000);
}

async function stopDaemon(folder: string, name: string): Promise<void> {
  if (!(await isAlive(folder, name))) return;
  process.kill(Number(await readFile(pidFile(folder, name), "utf8")), "SIGTERM");
  await waitUntil(`${name} ends`, async () => !(await isAlive(folder, name)), 60_000);
  await rm(pidFile(folder, name), { force: true });
}

const pidFile = (folder: string, name: string): string => join(folder, "run", `${name}.pid`);

/** The process of the pid file runs and is one of this cluster's. */
async function isAlive(folder: string, name: string): Promise<boolean> {
  try {
    const pid = (await readFile(pidFile(folder, name), "utf8")).trim();
    const environment = await readFile(`/proc/${pid}/environ`, "utf8");
    return environment.includes(`CEPH_CONF=${join(folder, "ceph.conf")}`);
  } catch {
    return false;
  }
}

function isThere(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
