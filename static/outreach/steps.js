// The steps of a workflow: what a step makes use of is open, and one that is added follows the last.
(() => {
    const TELLING = ["after", "delay", "condition", "deadline_minutes", "lead_seconds", "composer", "prompt"];
    const fieldOf = (row, name) => row.querySelector(`[name^="steps-"][name$="-${name}"]`);
    const rows = () => [...document.querySelectorAll("#steps-data > .form-group:not(.empty-form)")];

    const openUsed = (row) => {
        for (const name of TELLING) {
            const field = fieldOf(row, name);
            if (field?.value) field.closest("details")?.setAttribute("open", "");
        }
    };

    document.addEventListener("DOMContentLoaded", () => rows().forEach(openUsed));

    document.addEventListener("formset:added", (event) => {
        if (event.detail?.formsetName !== "steps") return;
        const row = event.target;
        const others = rows().filter((other) => other !== row);
        const last = Math.max(0, ...others.map((other) => Number(fieldOf(other, "position")?.value) || 0));
        fieldOf(row, "position").value = last + 1;
        const after = fieldOf(row, "after");
        if (last && !after.value) after.value = String(last);
        openUsed(row);
    });
})();
