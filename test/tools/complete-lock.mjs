// node test/tools/complete-lock.mjs: after `npm install` has changed package-lock.json. A registry mirror without the
// optional packages of other platforms makes npm leave these out of the lock, and then `npm ci` refuses it everywhere.
// This adds their names, versions and platforms, so that npm can see that it does not want them.
import { readFileSync, writeFileSync } from "node:fs";

const file = new URL("../../package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(file, "utf8"));
const { packages } = lock;

for (const [path, entry] of Object.entries({ ...packages })) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    if (packages[`node_modules/${name}`] || packages[`${path}/node_modules/${name}`]) continue;
    const os = /android|darwin|freebsd|linux|netbsd|openbsd|sunos|aix|win32|openharmony/.exec(
      name,
    )?.[0];
    const cpu = /arm64|x64|ppc64|s390x|ia32|riscv64|loong64|mips64el|wasm32|arm/.exec(name)?.[0];
    packages[`node_modules/${name}`] = {
      version,
      ...(entry.dev ? { dev: true } : {}),
      optional: true,
      ...(os === undefined ? {} : { os: [os] }),
      ...(cpu === undefined ? {} : { cpu: [cpu] }),
      ...(/musl/.test(name) ? { libc: ["musl"] } : {}),
      ...(/linux.*gnu/.test(name) ? { libc: ["glibc"] } : {}),
    };
  }
}
lock.packages = Object.fromEntries(
  Object.entries(packages).sort(([left], [right]) => left.localeCompare(right, "en")),
);
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
