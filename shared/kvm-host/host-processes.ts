import type { HostConnection } from "../ports/host.ts";
import { runOnHost } from "./files.ts";

/**
 * Ends the processes on the host that have exactly this argument and this program name, and waits until they are
 * gone. The argument carries a job id, so nothing else can match.
 */
export async function endProcesses(
  connection: HostConnection,
  { argument, program }: { readonly argument: string; readonly program: string },
): Promise<void> {
  await runOnHost(connection, [
    "sh",
    "-c",
    endScript,
    "holdfast-end",
    ...halves(argument),
    program,
  ]);
}

/** True while such a process runs. */
export async function hasProcess(
  connection: HostConnection,
  { argument, program }: { readonly argument: string; readonly program: string },
): Promise<boolean> {
  const output = await runOnHost(connection, [
    "sh",
    "-c",
    `${findFunction}\nfind_them "$1$2" "$3"`,
    "holdfast-find",
    ...halves(argument),
    program,
  ]);
  return output.trim() !== "";
}

/** In two parts, so that the searching shell and its children do not carry the argument themselves. */
function halves(argument: string): readonly [string, string] {
  return [argument.slice(0, 4), argument.slice(4)];
}

const findFunction = `
find_them() {
  for f in $(grep -lszxF -e "$1" /proc/[0-9]*/cmdline); do
    d=\${f%/cmdline}; p=\${d#/proc/}
    [ "$(cat "$d/comm" 2>/dev/null)" = "$2" ] && echo "$p"
  done
  :
}`;

const endScript = `${findFunction}
n=0
while [ $n -lt 100 ]; do
  pids=$(find_them "$1$2" "$3")
  [ -z "$pids" ] && exit 0
  if [ $n -eq 0 ]; then kill $pids 2>/dev/null; fi
  if [ $n -eq 50 ]; then kill -9 $pids 2>/dev/null; fi
  n=$((n+1)); sleep 0.1
done
echo "processes $pids do not end" >&2; exit 1`;
