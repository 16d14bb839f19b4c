import { failureCodes, failureId, failureKind } from "@holdfast/shared/domain/failure";
import { exitCodes } from "./exit-codes.ts";
import { renderTable } from "./render/table.ts";

/** What `holdfast help TOPIC` prints, and docs/cli.md repeats. */
export type HelpTopic = { readonly name: string; readonly summary: string; text(): string };

export const environmentVariables: readonly (readonly [name: string, meaning: string])[] = [
  ["HOLDFAST_ENDPOINT", "address of the API; --endpoint wins over it, it wins over the profile"],
  ["HOLDFAST_TOKEN_FILE", "file with the API's token; wins over the profile's"],
  ["HOLDFAST_PROFILE", "profile to use when --profile is not given (local)"],
  ["HOLDFAST_PASSPHRASE", "passphrase of the repository, for stand-alone commands and export"],
  [
    "HOLDFAST_PROGRESS_FPS",
    "progress updates a second: 10 at a terminal, 0.0333 in a pipe; 0 for none",
  ],
  ["XDG_CONFIG_HOME", "holds holdfast/config.json with the profiles (~/.config)"],
  ["XDG_DATA_HOME", "holds holdfast/, the state of `holdfast up` (~/.local/share)"],
  ["XDG_CACHE_HOME", "holds holdfast/node, compiled sources that shorten the start (~/.cache)"],
  ["AWS_*", "endpoint, region and credentials of S3 repositories, as the AWS SDK reads them"],
];

export const helpTopics: readonly HelpTopic[] = [
  {
    name: "exit-codes",
    summary: "what the exit code of a command says",
    text: () =>
      "A script may rely on these; an unknown code counts as failure.\n\n" +
      renderTable(
        {
          columns: [{ title: "CODE", align: "right" }, { title: "MEANING" }],
          rows: Object.values(exitCodes).map(({ code, meaning }) => [String(code), meaning]),
        },
        { forPeople: true },
      ),
  },
  {
    name: "environment",
    summary: "environment variables and files",
    text: () =>
      "Order of precedence: options, environment, profile, defaults. Secrets come by file, environment or question,\nnever as an argument.\n\n" +
      renderTable(
        {
          columns: [{ title: "VARIABLE" }, { title: "MEANING" }],
          rows: environmentVariables,
        },
        { forPeople: true },
      ),
  },
  {
    name: "errors",
    summary: "every error's id, exit code and what to do",
    text: () =>
      renderTable(
        {
          columns: [{ title: "ID" }, { title: "EXIT", align: "right" }, { title: "NEXT" }],
          rows: failureCodes.map((code) => [
            failureId(code),
            String(failureKind(code).exitCode),
            failureKind(code).advice,
          ]),
        },
        { forPeople: true },
      ),
  },
];
