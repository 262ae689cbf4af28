"""Bundles (`.tinf`): one file with all that a compiled model needs to run. `docs/bundle.md` is the
specification, and every module here is one of its chapters. Reading needs neither `onnx` nor a compiler.

    container       the file: header, table of contents, hashes          Section, Container, write_bundle
    plan_section    `PLAN`: a target's plan as tables                    PlanSection, write_plan
    plan_reader     `PLAN` again, every number checked                  read_plan, read_machine
    weights         `WIDX`, `WGHT`: parameters, each content once        WeightStore, Weights
    golden          `GOLD`: inputs and the outputs that belong to them   GoldenVector, compare
    provenance      `PROV`: the ONNX nodes behind each launch            write_provenance
    signature       `SIGN`: Ed25519
"""
