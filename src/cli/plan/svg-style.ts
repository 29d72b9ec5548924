/** Readable on light and dark ground; fonts and tones as in the drawings of networks. */
const colors = ["#2f7de1", "#d9702b", "#2f9e6e", "#a04fd0", "#c2417c", "#8a8f1d", "#2a9db0", "#8d6a4a"];

const laneStyle = colors.map((color, index) => `.color-${index}{fill:${color};stroke:${color}}`).join("");

export const planStyle = `
.ground{fill:#ffffff}text{fill:#1c2430;font:13px system-ui,"Segoe UI",Helvetica,Arial,sans-serif}
.title{font-size:20px;font-weight:600}.strong{font-weight:600}.quiet{fill:#5b6675;font-size:11px}.label{font-size:11px}
.count{font-size:11px;font-weight:600}
.grid{stroke:#e3e9f0;stroke-width:1}.base{stroke:#b3c3d6;stroke-width:1}
${laneStyle}.all{fill:#6b7a8c;stroke:#6b7a8c}
.area{fill-opacity:.28;stroke:none}.band{fill-opacity:.13;stroke:none}.steps{fill:none;stroke-width:1.8}
.lent{fill:url(#lent);stroke:#7d93ad;stroke-width:1;stroke-dasharray:3 3}.hatch{stroke:#7d93ad;stroke-width:1.4}
.missing{fill:#cc3d3d;fill-opacity:.22;stroke:#cc3d3d;stroke-width:1;stroke-dasharray:3 3}.conflict{fill:#cc3d3d}
.limit{fill:none;stroke:#1c2430;stroke-width:1.4;stroke-dasharray:6 4}
@media (prefers-color-scheme:dark){
.ground{fill:#12161c}text{fill:#e4e9f0}.quiet{fill:#98a4b3}.grid{stroke:#232b36}.base{stroke:#3b4d63}.limit{stroke:#e4e9f0}
}
`;
