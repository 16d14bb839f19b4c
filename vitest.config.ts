import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    // By default one core of two would stay idle.
    maxWorkers: "100%",
    projects: [
      {
        test: {
          name: "unit",
          include: ["{shared,functions,mover,infra,console,test}/**/*.test.ts"],
          exclude: ["**/node_modules/**", "test/systems/**"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: "systems",
          include: ["test/systems/**/*.test.ts"],
          globalSetup: ["test/systems/install-packages.ts"],
          testTimeout: 300_000,
          hookTimeout: 600_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
