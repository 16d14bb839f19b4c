// Who may import whom (docs/architecture.md). Broken on purpose by test/tools/import-rules.test.ts to prove that it bites.
const product = "^(shared|functions|mover|infra|console)/";
const not = (...folders) => folders.map((folder) => `^${folder}/`);
const forbid = (name, from, to, more = {}) => ({
  name,
  severity: "error",
  from: { path: from, ...more },
  to: { path: to },
});

module.exports = {
  forbidden: [
    {
      name: "no-cycles",
      severity: "error",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    { name: "no-unresolved", severity: "error", from: {}, to: { couldNotResolve: true } },
    forbid("domain-is-pure", "^shared/domain/", [
      "^shared/(?!domain/)",
      ...not("functions", "mover", "infra", "console", "test"),
    ]),
    forbid("contracts-and-ports-know-no-sdk", "^shared/(contracts|ports)/", [
      "node_modules/@aws-sdk",
      "^shared/(repository|providers|storage|aws|kvm-host)/",
    ]),
    forbid(
      "repository-knows-no-storage-or-provider",
      "^shared/repository/",
      ["^shared/(storage|providers|aws|kvm-host)/", "node_modules/@aws-sdk"],
      { pathNot: "\\.test\\.ts$" },
    ),
    forbid("providers-know-ports-only", "^shared/providers/", [
      "^shared/(repository|storage|aws)/",
      "node_modules/@aws-sdk",
      ...not("functions", "mover", "infra", "console"),
    ]),
    {
      name: "a-provider-knows-no-other",
      severity: "error",
      from: { path: "^shared/providers/([^/]+)/" },
      to: { path: "^shared/providers/", pathNot: "^shared/providers/$1/" },
    },
    forbid(
      "storage-and-aws-know-no-engine",
      "^shared/(storage|aws)/",
      ["^shared/(repository|providers|kvm-host)/"],
      { pathNot: "\\.test\\.ts$" },
    ),
    forbid(
      "shared-imports-nothing-outside",
      "^shared/",
      not("functions", "mover", "infra", "console"),
      { pathNot: "\\.test\\.ts$" },
    ),
    forbid("functions-not-mover-infra", "^functions/", not("mover", "infra", "console")),
    forbid("mover-not-functions-infra", "^mover/", not("functions", "infra", "console")),
    forbid("infra-reaches-no-insides", "^infra/", not("functions", "mover", "console"), {
      pathNot: "\\.test\\.ts$",
    }),
    forbid("cli-not-the-rest", "^console/", not("functions", "mover", "infra")),
    forbid("product-never-imports-test", product, "^test/", { pathNot: "\\.test\\.ts$" }),
  ],
  options: {
    parser: "tsc",
    doNotFollow: { path: "node_modules" },
    exclude: { path: "(^|/)(cdk\\.out|coverage)/" },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "default"],
      extensions: [".ts", ".mjs", ".js", ".json"],
    },
  },
};
