#!/usr/bin/env python3
"""Writes a bill of materials (CycloneDX 1.5, JSON) of the program from `cargo metadata` on standard input.

usage: cargo metadata --format-version 1 --locked ... | tools/sbom.py Cargo.lock

It has the crates that the program is compiled from, with those that run while it is built, and none of its tests.
The same input gives the same bytes: its time is SOURCE_DATE_EPOCH, its number a hash of what it lists.
"""
import datetime
import json
import os
import sys
import tomllib
import uuid

PROGRAM = "cep-fast"


def main():
    metadata = json.load(sys.stdin)
    with open(sys.argv[1], "rb") as file:
        locked = {(it["name"], it["version"]): it.get("checksum") for it in tomllib.load(file)["package"]}
    packages = {it["id"]: it for it in metadata["packages"]}
    nodes = {it["id"]: it for it in metadata["resolve"]["nodes"]}
    root = next(id for id, it in packages.items() if it["name"] == PROGRAM and it["source"] is None)
    needs = reached(nodes, root)
    components = [component(packages[id], locked) for id in needs if id != root]
    dependencies = [
        {"ref": reference(packages[id]), "dependsOn": sorted(reference(packages[it]) for it in needs[id])}
        for id in needs
    ]
    listed = {
        "components": sorted(components, key=lambda it: it["bom-ref"]),
        "dependencies": sorted(dependencies, key=lambda it: it["ref"]),
    }
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    time = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    main_component = component(packages[root], locked) | {"type": "application"}
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([main_component, listed], sort_keys=True))
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        "metadata": {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": main_component},
    } | listed
    json.dump(bill, sys.stdout, indent=1, ensure_ascii=False)
    print()


def reached(nodes, root):
    """What the program needs, and what each of that needs: all but the needs of tests."""
    found, ahead = {}, [root]
    while ahead:
        id = ahead.pop()
        if id in found:
            continue
        is_needed = lambda need: any(kind["kind"] in (None, "build") for kind in need["dep_kinds"])
        found[id] = {need["pkg"] for need in nodes[id]["deps"] if is_needed(need)}
        ahead.extend(found[id])
    return found


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, locked):
    entry = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package["license"]:
        # Some crates write the old form.
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = locked.get((package["name"], package["version"]))
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


if __name__ == "__main__":
    main()
