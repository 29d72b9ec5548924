/** Entry of the thread that scanTreeInThread starts; the parent reads the one message. */
import { parentPort, workerData } from "node:worker_threads";
import { type ScanRequest, scanTree } from "./tree-scan.ts";

parentPort?.postMessage(scanTree(workerData as ScanRequest));
