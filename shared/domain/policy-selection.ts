import type { VmSelection } from "./policy.ts";

export type SelectableVm = {
  readonly vmId: string;
  readonly providerId: string;
  readonly description: { readonly name: string; readonly tags: readonly string[] };
};

/**
 * Whether a policy protects this VM: every given field must match. Of `tags` the VM must carry all;
 * of the ids one must be its own. A selection without fields, or with an empty list, selects nothing.
 */
export function selectsVm(selection: VmSelection, vm: SelectableVm): boolean {
  const { providerIds, namePattern, tags, vmIds } = selection;
  const answers = [
    providerIds?.includes(vm.providerId),
    namePattern === undefined ? undefined : matchesGlob(namePattern, vm.description.name),
    tags && tags.length > 0 && tags.every((tag) => vm.description.tags.includes(tag)),
    vmIds?.includes(vm.vmId),
  ].filter((answer) => answer !== undefined);
  return answers.length > 0 && answers.every(Boolean);
}

/** `*` any run of characters, `?` exactly one; case matters. Takes at most pattern × text steps, whatever the pattern. */
export function matchesGlob(pattern: string, text: string): boolean {
  const glyphs = Array.from(pattern);
  const letters = Array.from(text);
  let at = 0;
  let next = 0;
  // Where to go on when a literal fails: one letter further behind the last star.
  let star: { readonly at: number; readonly next: number } | undefined;
  while (next < letters.length) {
    const glyph = glyphs[at];
    if (glyph === "*") {
      star = { at, next };
      at += 1;
    } else if (glyph !== undefined && (glyph === "?" || glyph === letters[next])) {
      at += 1;
      next += 1;
    } else if (star !== undefined) {
      star = { at: star.at, next: star.next + 1 };
      at = star.at + 1;
      next = star.next;
    } else {
      return false;
    }
  }
  return glyphs.slice(at).every((glyph) => glyph === "*");
}
